"""Client of the real-time 4K upscaling service.

from upscale_client import UpscaleClient

with UpscaleClient("localhost:50051") as client:
    answer = client.upscale(frame)  # a (1080, 1920, 3) uint8 array, or the bytes of a PNG, JPEG or WebP
    answer.array                    # (2160, 3840, 3) uint8
"""

from upscale_client._client import AsyncUpscaleClient, UpscaleClient
from upscale_client._errors import (
    BudgetSpentError,
    InternalError,
    InvalidRequestError,
    MessageTooLargeError,
    ModelNotFoundError,
    OverloadedError,
    UnavailableError,
    UpscaleError,
)
from upscale_client._messages import Encoding, Profile, Served, Stage, Upscaled

__all__ = [
    "AsyncUpscaleClient",
    "BudgetSpentError",
    "Encoding",
    "InternalError",
    "InvalidRequestError",
    "MessageTooLargeError",
    "ModelNotFoundError",
    "OverloadedError",
    "Profile",
    "Served",
    "Stage",
    "UnavailableError",
    "UpscaleClient",
    "UpscaleError",
    "Upscaled",
]
