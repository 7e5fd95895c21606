"""Between Python's values and the messages of upscale.proto; no network in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray

from upscale_client.v1 import upscale_pb2 as pb

Encoding = Literal["rgb24", "png", "jpeg", "webp"]
Profile = Literal["clean", "compressed"]
Stage = Literal["receive", "decode", "queue", "infer", "encode"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_ENCODINGS: dict[Encoding, pb.Encoding] = {
    "rgb24": pb.ENCODING_RGB24,
    "png": pb.ENCODING_PNG,
    "jpeg": pb.ENCODING_JPEG,
    "webp": pb.ENCODING_WEBP,
}
_PROFILES: dict[Profile, pb.Profile] = {"clean": pb.PROFILE_CLEAN, "compressed": pb.PROFILE_COMPRESSED}
_ENCODING_NAMES: dict[pb.Encoding, Encoding] = {value: name for name, value in _ENCODINGS.items()}
_PROFILE_NAMES: dict[pb.Profile, Profile] = {value: name for name, value in _PROFILES.items()}


@dataclass(frozen=True)
class Upscaled:
    """An enlarged frame."""

    width: int
    height: int
    encoding: Encoding
    data: bytes
    """RGB24 pixels, or a picture in `encoding`."""
    model: str
    variant: str
    """The trained network that ran, e.g. `runet_x2_clean`."""
    stages_s: dict[Stage, float]
    """Seconds the frame spent in each stage of the service."""
    batch_frames: int
    """Frames inferred together with this one, itself included."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """The pixels of an RGB24 answer: (height, width, 3), read-only, not a copy.

        Raises:
            ValueError: the answer is a PNG, JPEG or WebP.
        """
        if self.encoding != "rgb24":
            raise ValueError(f"the answer is encoded as {self.encoding}: ask for output='rgb24', or decode .data")
        return np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, 3)


@dataclass(frozen=True)
class Served:
    """A network the service offers."""

    name: str
    model: str
    scale: int
    profile: Profile
    max_batch_frames: int
    ready: bool
    trained: bool
    """False for random weights, served to measure speed: the pictures mean nothing."""


def request(
    frame: NDArray[np.uint8] | bytes,
    *,
    model: str,
    scale: int,
    profile: Profile | None,
    output: Encoding,
    quality: int,
    budget_s: float | None,
) -> pb.UpscaleRequest:
    """The message that asks for a frame.

    Raises:
        ValueError: `frame` is not a uint8 array of shape (H, W, 3), or bytes that are no PNG, JPEG or WebP.
    """
    message = pb.UpscaleRequest(
        model=model,
        scale=scale,
        profile=_PROFILES[profile] if profile else pb.PROFILE_UNSPECIFIED,
        output=pb.OutputFormat(encoding=_ENCODINGS[output], quality=quality),
        frame=_picture(frame) if isinstance(frame, bytes) else _raw(frame),
    )
    if budget_s is not None:
        message.budget.FromNanoseconds(round(budget_s * 1e9))
    return message


def _raw(frame: NDArray[np.uint8]) -> pb.Frame:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame is a uint8 array of shape (height, width, 3), not {frame.dtype} {frame.shape}")
    height, width = frame.shape[:2]
    return pb.Frame(width=width, height=height, encoding=pb.ENCODING_RGB24, data=frame.tobytes())


def _picture(data: bytes) -> pb.Frame:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        encoding = pb.ENCODING_PNG
    elif data.startswith(b"\xff\xd8\xff"):
        encoding = pb.ENCODING_JPEG
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        encoding = pb.ENCODING_WEBP
    else:
        raise ValueError("these bytes are no PNG, JPEG or WebP picture; raw pixels go as a uint8 array")
    return pb.Frame(encoding=encoding, data=data)


def answer(response: pb.UpscaleResponse) -> Upscaled:
    """The enlarged frame in a response."""
    return Upscaled(
        width=response.frame.width,
        height=response.frame.height,
        encoding=_ENCODING_NAMES[response.frame.encoding],
        data=response.frame.data,
        model=response.model,
        variant=response.variant,
        stages_s={stage: _seconds(getattr(response.times, stage)) for stage in STAGES},
        batch_frames=response.batch_frames,
    )


def served(response: pb.ListModelsResponse) -> list[Served]:
    """The networks in a response."""
    return [
        Served(
            name=variant.name,
            model=variant.model,
            scale=variant.scale,
            profile=_PROFILE_NAMES[variant.profile],
            max_batch_frames=variant.max_batch_frames,
            ready=variant.ready,
            trained=variant.trained,
        )
        for variant in response.variants
    ]


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
