"""Between Python's values and the messages of upscale.proto; no network in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray

from upscale_client._errors import InternalError, UpscaleError, from_status
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Buffer, Framed

PixelFormat = Literal["rgb24", "nv12", "i420"]
Encoding = Literal["rgb24", "nv12", "i420", "png", "jpeg", "webp"]
Profile = Literal["clean", "compressed"]
Stage = Literal["receive", "decode", "queue", "infer", "encode"]
Priority = Literal["live", "offline"]
Drop = Literal["keep_all", "latest_wins"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_ENCODINGS: dict[Encoding, pb.Encoding] = {
    "rgb24": pb.ENCODING_RGB24,
    "nv12": pb.ENCODING_NV12,
    "i420": pb.ENCODING_I420,
    "png": pb.ENCODING_PNG,
    "jpeg": pb.ENCODING_JPEG,
    "webp": pb.ENCODING_WEBP,
}
_PROFILES: dict[Profile, pb.Profile] = {"clean": pb.PROFILE_CLEAN, "compressed": pb.PROFILE_COMPRESSED}
_PRIORITIES: dict[Priority, pb.Priority] = {"live": pb.PRIORITY_LIVE, "offline": pb.PRIORITY_OFFLINE}
_DROPS: dict[Drop, pb.DropPolicy] = {
    "keep_all": pb.DROP_POLICY_KEEP_ALL,
    "latest_wins": pb.DROP_POLICY_LATEST_WINS,
}
_ENCODING_NAMES: dict[pb.Encoding, Encoding] = {value: name for name, value in _ENCODINGS.items()}
_PROFILE_NAMES: dict[pb.Profile, Profile] = {value: name for name, value in _PROFILES.items()}


@dataclass(frozen=True)
class Colour:
    """How the numbers of NV12 and I420 frames are to be read; the default is that of HD video."""

    matrix: Literal["bt709", "bt601"] = "bt709"
    full_range: bool = False

    def message(self) -> pb.Colour:
        """As the protocol says it."""
        return pb.Colour(
            matrix=pb.COLOUR_MATRIX_BT709 if self.matrix == "bt709" else pb.COLOUR_MATRIX_BT601,
            range=pb.COLOUR_RANGE_FULL if self.full_range else pb.COLOUR_RANGE_LIMITED,
        )


@dataclass(frozen=True)
class Wish:
    """What is wanted of a frame, or of all frames of a stream; `UpscaleClient.upscale` says what the fields mean."""

    model: str = ""
    scale: int = 0
    profile: Profile | None = None
    output: Encoding | None = None
    quality: int = 0
    budget_s: float | None = None
    priority: Priority = "live"
    step_down: bool = False

    def put(self, message: pb.UpscaleRequest | pb.StreamOptions) -> None:
        """Say it in a message."""
        message.model = self.model
        message.scale = self.scale
        message.profile = _PROFILES[self.profile] if self.profile else pb.PROFILE_UNSPECIFIED
        message.output.encoding = _ENCODINGS[self.output] if self.output else pb.ENCODING_UNSPECIFIED
        message.output.quality = self.quality
        if self.budget_s is not None:
            message.budget.FromNanoseconds(round(self.budget_s * 1e9))
        message.priority = _PRIORITIES[self.priority]
        message.step_down = self.step_down


@dataclass(frozen=True)
class StreamFrame:
    """A frame of a stream, with what its answer is to repeat."""

    frame: NDArray[np.uint8] | bytes
    sequence: int
    presentation_time: int = 0
    """When it is to be shown, in units of your own."""


@dataclass(frozen=True)
class Upscaled:
    """An enlarged frame."""

    width: int
    height: int
    encoding: Encoding
    data: Buffer
    """Pixels, or a picture in `encoding`; read-only. Empty if they lie in shared memory."""
    model: str
    variant: str
    """The trained network that ran, e.g. `runet_x2_clean`."""
    stages_s: Mapping[Stage, float]
    """Seconds the frame spent in each stage of the service."""
    batch_frames: int
    """Frames inferred together with this one, itself included."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """The pixels of a raw answer, read-only, not a copy: (height, width, 3), or (height * 3 / 2, width) for YUV.

        Raises:
            ValueError: the answer is a PNG, JPEG or WebP.
        """
        if self.encoding not in get_args(PixelFormat):
            raise ValueError(f"the answer is encoded as {self.encoding}: ask for output='rgb24', or decode .data")
        shape = (self.height, self.width, 3) if self.encoding == "rgb24" else (self.height * 3 // 2, self.width)
        return np.frombuffer(self.data, np.uint8).reshape(shape)


@dataclass(frozen=True)
class StreamAnswer:
    """What became of a frame of a stream."""

    sequence: int
    presentation_time: int
    dropped: int
    """Frames that `latest_wins` dropped between the answer before and this one."""
    upscaled: Upscaled | None
    error: UpscaleError | None

    def result(self) -> Upscaled:
        """The enlarged frame.

        Raises:
            UpscaleError: there is none; the stream goes on all the same.
        """
        if self.error is not None:
            raise self.error
        assert self.upscaled is not None
        return self.upscaled

    @property
    def array(self) -> NDArray[np.uint8]:
        """As `Upscaled.array`; raises what `result` raises."""
        return self.result().array


@dataclass(frozen=True)
class StreamSummary:
    """A stream's end: frames answered, failed, and dropped by `latest_wins`."""

    answered: int
    failed: int
    dropped: int


@dataclass(frozen=True)
class BatchTime:
    """What the service expects a batch of frames to take."""

    endpoint: str
    """The inference server that would run it."""
    width: int
    """Of the frames sent."""
    height: int
    frames: int
    """How many are inferred together."""
    predicted_s: float
    """Seconds in the inference server, without waiting for it."""


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
    pixel_format: Encoding
    """`rgb24`, which pictures are too; or `nv12`, which serves `i420` too."""
    batch_times: tuple[BatchTime, ...]
    """Of the sizes that the service has a figure for."""


def request(
    frame: NDArray[np.uint8] | bytes, wish: Wish, pixel_format: PixelFormat, colour: Colour
) -> Framed[pb.UpscaleRequest]:
    """The message that asks for a frame.

    Raises:
        ValueError: `frame` is neither pixels in this format nor the bytes of a PNG, JPEG or WebP.
    """
    head, data = _frame(frame, pixel_format, colour)
    message = pb.UpscaleRequest(frame=head)
    wish.put(message)
    return Framed(message, data)


def stream_options(wish: Wish, drop: Drop, window: int) -> Framed[pb.UpscaleStreamRequest]:
    """The first message of a stream."""
    options = pb.StreamOptions(drop=_DROPS[drop], window=window)
    wish.put(options)
    return Framed(pb.UpscaleStreamRequest(options=options))


def stream_request(frame: StreamFrame, pixel_format: PixelFormat, colour: Colour) -> Framed[pb.UpscaleStreamRequest]:
    """A frame of a stream; errors as for `request`."""
    head, data = _frame(frame.frame, pixel_format, colour)
    message = pb.UpscaleStreamRequest(sequence=frame.sequence, presentation_time=frame.presentation_time, frame=head)
    return Framed(message, data)


def raw_shape(width: int, height: int, pixel_format: PixelFormat) -> tuple[int, ...]:
    """Of an array of raw pixels."""
    return (height, width, 3) if pixel_format == "rgb24" else (height * 3 // 2, width)


def raw_head(width: int, height: int, pixel_format: PixelFormat, colour: Colour) -> pb.Frame:
    """What a raw frame says of itself, without its bytes."""
    return pb.Frame(
        width=width,
        height=height,
        encoding=_ENCODINGS[pixel_format],
        colour=None if pixel_format == "rgb24" else colour.message(),
    )


def _frame(frame: NDArray[np.uint8] | bytes, pixel_format: PixelFormat, colour: Colour) -> tuple[pb.Frame, Buffer]:
    if isinstance(frame, bytes):
        return pb.Frame(encoding=_picture_encoding(frame)), frame
    if pixel_format == "rgb24":
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame is a uint8 array of shape (height, width, 3), not {frame.dtype} {frame.shape}")
        height, width = frame.shape[:2]
    else:
        if frame.ndim != 2 or frame.dtype != np.uint8 or frame.shape[0] % 3 or frame.shape[1] % 2:
            raise ValueError(
                f"a frame in {pixel_format} is a uint8 array of shape (height * 3 / 2, width), both sides even, "
                f"not {frame.dtype} {frame.shape}"
            )
        height, width = frame.shape[0] // 3 * 2, frame.shape[1]
    return raw_head(width, height, pixel_format, colour), np.ascontiguousarray(frame).data


def _picture_encoding(data: bytes) -> pb.Encoding:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return pb.ENCODING_PNG
    if data.startswith(b"\xff\xd8\xff"):
        return pb.ENCODING_JPEG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return pb.ENCODING_WEBP
    raise ValueError("these bytes are no PNG, JPEG or WebP picture; raw pixels go as a uint8 array")


def answer(response: Framed[pb.UpscaleResponse] | Framed[pb.UpscaleStreamResponse]) -> Upscaled:
    """The enlarged frame in a response.

    Raises:
        InternalError: there is none that this client understands.
    """
    message = response.message
    frame, size = message.frame, 0 if response.data is None else memoryview(response.data).nbytes
    encoding = _ENCODING_NAMES.get(frame.encoding)
    if encoding is None:
        raise _not_understood(f"its encoding is {frame.encoding}")
    if encoding in get_args(PixelFormat) and response.data is not None:
        expected = math.prod(raw_shape(frame.width, frame.height, cast("PixelFormat", encoding)))
        if size != expected or (encoding != "rgb24" and (frame.width % 2 or frame.height % 2)):
            raise _not_understood(f"it has {size} bytes, not those of {frame.width}x{frame.height} in {encoding}")
    return Upscaled(
        width=message.frame.width,
        height=message.frame.height,
        encoding=encoding,
        data=b"" if response.data is None else response.data,
        model=message.model,
        variant=message.variant,
        stages_s={stage: _seconds(getattr(message.times, stage)) for stage in STAGES},
        batch_frames=message.batch_frames,
    )


def stream_answer(response: Framed[pb.UpscaleStreamResponse]) -> StreamAnswer:
    """What a stream's response says of a frame."""
    message = response.message
    upscaled: Upscaled | None = None
    error = _frame_error(message.error) if message.HasField("error") else None
    if error is None:
        try:
            upscaled = answer(response)
        except UpscaleError as not_understood:
            error = not_understood
    return StreamAnswer(
        sequence=message.sequence,
        presentation_time=message.presentation_time,
        dropped=message.dropped,
        upscaled=upscaled,
        error=error,
    )


def _not_understood(why: str) -> UpscaleError:
    return InternalError(f"the service's answer is not understood: {why}", grpc.StatusCode.INTERNAL)


def _frame_error(error: pb.FrameError) -> UpscaleError:
    retry_after_s = _seconds(error.retry_after) if error.HasField("retry_after") else None
    return from_status(error.code, error.message, error.reason, retry_after_s, error.request_id)


def served(response: pb.ListModelsResponse) -> list[Served]:
    """The networks in a response, without those for profiles and formats that this client has no word for."""
    return [
        Served(
            name=variant.name,
            model=variant.model,
            scale=variant.scale,
            profile=_PROFILE_NAMES[variant.profile],
            max_batch_frames=variant.max_batch_frames,
            ready=variant.ready,
            trained=variant.trained,
            pixel_format=_ENCODING_NAMES[variant.pixel_format],
            batch_times=tuple(
                BatchTime(each.endpoint, each.width, each.height, each.frames, _seconds(each.predicted))
                for each in variant.batch_times
            ),
        )
        for variant in response.variants
        if variant.profile in _PROFILE_NAMES and variant.pixel_format in _ENCODING_NAMES
    ]


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9
