"""Client of the real-time 4K upscaling service.

from upscale_client import UpscaleClient

with UpscaleClient("localhost:50051") as client:
    answer = client.upscale(frame)  # a (1080, 1920, 3) uint8 array, or the bytes of a PNG, JPEG or WebP
    answer.array                    # (2160, 3840, 3) uint8

    for answer in client.stream(frames):  # a session: many frames in flight, answers in order
        answer.array

    with client.shared_frames(1920, 1080, scale=2) as shared:  # on the service's host: no pixel is sent
        shared.inputs[0][:] = frame
        shared.upscale()
        shared.outputs[0]           # (2160, 3840, 3) uint8
"""

from upscale_client._async_client import AsyncSharedFrames, AsyncUpscaleClient, AsyncUpscaleStream
from upscale_client._calls import Tls
from upscale_client._client import SharedFrames, UpscaleClient, UpscaleStream
from upscale_client._errors import (
    BudgetSpentError,
    BudgetTooSmallError,
    InternalError,
    InvalidRequestError,
    MessageTooLargeError,
    ModelNotFoundError,
    NotOfferedError,
    OverloadedError,
    UnauthenticatedError,
    UnavailableError,
    UpscaleError,
)
from upscale_client._messages import (
    BatchTime,
    Colour,
    Drop,
    Encoding,
    PixelFormat,
    Priority,
    Profile,
    Served,
    Stage,
    StreamAnswer,
    StreamFrame,
    StreamSummary,
    Upscaled,
)

__all__ = [
    "AsyncSharedFrames",
    "AsyncUpscaleClient",
    "AsyncUpscaleStream",
    "BatchTime",
    "BudgetSpentError",
    "BudgetTooSmallError",
    "Colour",
    "Drop",
    "Encoding",
    "InternalError",
    "InvalidRequestError",
    "MessageTooLargeError",
    "ModelNotFoundError",
    "NotOfferedError",
    "OverloadedError",
    "PixelFormat",
    "Priority",
    "Profile",
    "Served",
    "SharedFrames",
    "Stage",
    "StreamAnswer",
    "StreamFrame",
    "StreamSummary",
    "Tls",
    "UnauthenticatedError",
    "UnavailableError",
    "UpscaleClient",
    "UpscaleError",
    "UpscaleStream",
    "Upscaled",
]
