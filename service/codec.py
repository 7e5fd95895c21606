"""Between a frame's bytes and its pixels in a slot. Knows every encoding, and trusts none of them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service import pictures
from service.errors import FrameInvalidError, RequestInvalidError
from service.frames import FrameFormat, PixelFormat, Slot
from service.settings import RGB_BYTES
from upscale_client.colour import Matrix, colour_maps
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Buffer

_PICTURES = {pb.ENCODING_PNG: "PNG", pb.ENCODING_JPEG: "JPEG", pb.ENCODING_WEBP: "WEBP"}
_PICTURE_ENCODINGS = {kind: encoding for encoding, kind in _PICTURES.items()}
_YUV = frozenset({pb.ENCODING_NV12, pb.ENCODING_I420})
# What lies in a slot as it lies on the wire.
_AS_IN_SLOT: dict[int, PixelFormat] = {pb.ENCODING_RGB24: "rgb24", pb.ENCODING_NV12: "nv12"}
_RAW = {
    pb.ENCODING_RGB24: "3 * width * height",
    pb.ENCODING_NV12: "width * height * 3 / 2",
    pb.ENCODING_I420: "width * height * 3 / 2",
}
# Cameras say in a header how they were held. A PNG may say it after its pixels, which we will not decode to find out.
_MAY_BE_TURNED = frozenset({pb.ENCODING_JPEG, pb.ENCODING_WEBP})
_MATRICES: dict[int, Matrix] = {pb.COLOUR_MATRIX_BT709: "bt709", pb.COLOUR_MATRIX_BT601: "bt601"}
_DEFAULT_QUALITY = 90
# Sizes are checked against our own limit, from the header, before Pillow decodes anything; its own check only warns.
Image.MAX_IMAGE_PIXELS = None
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What is done to a picture by its EXIF orientation, to see it as it was taken."""
_TURNED_ORIENTATIONS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class FrameInfo:
    """What a frame says of itself, checked as far as its header goes."""

    width: int
    height: int
    encoding: pb.Encoding
    colours: NDArray[np.float32] | None
    """The maps between a YUV frame's numbers and RGB, (2, 3, 4)."""

    @property
    def pixels(self) -> PixelFormat:
        """As what the frame lies in a slot."""
        return "nv12" if self.encoding in _YUV else "rgb24"

    def layout(self, scale: int) -> FrameFormat:
        """Of the slot it needs."""
        return FrameFormat(self.height, self.width, scale, self.pixels)


@dataclass(frozen=True)
class Output:
    """How an answer is encoded."""

    encoding: pb.Encoding
    quality: int


def needs_thread(encoding: int) -> bool:
    """Whether decoding or encoding takes long enough to be done outside the event loop; raw frames are just copied."""
    return encoding in _PICTURES


def lies_as_in_slot(encoding: int) -> bool:
    """Whether the network can take the frame's bytes, or give the answer's, just as they are."""
    return encoding in _AS_IN_SLOT


def raw_bytes(width: int, height: int, encoding: int) -> int:
    """How long a raw frame is.

    Raises:
        FrameInvalidError: it is not raw, so nobody can say.
    """
    if encoding not in _RAW:
        raise _not_in_a_region(encoding)
    return width * height * RGB_BYTES // (2 if encoding in _YUV else 1)


def inspect(frame: pb.Frame, data: Buffer | None, min_side: int) -> FrameInfo:
    """Check everything about a frame that can be checked without decoding it; `data` is None if it lies in a region.

    Raises:
        FrameInvalidError: the size, the encoding or the byte count is wrong, or there is no such picture in the bytes.
    """
    if data is None and not frame.HasField("region"):
        raise FrameInvalidError("frame.data is missing")
    encoding = frame.encoding
    if encoding in _RAW:
        width, height = frame.width, frame.height
    elif encoding in _PICTURES:
        if data is None:
            raise _not_in_a_region(encoding)
        width, height = _picture_size(data, _PICTURES[encoding])
        for name, said, found in (("width", frame.width, width), ("height", frame.height, height)):
            if said not in (0, found):
                raise FrameInvalidError(f"frame.{name} is {said}, but the picture's {name} is {found}")
    else:
        raise FrameInvalidError(f"frame.encoding is {_name(encoding)}; accepted are: {_accepted()}")
    for name, value in (("width", width), ("height", height)):
        if value < min_side:
            raise FrameInvalidError(f"frame.{name} is {value}; the least is {min_side}")
        if encoding in _YUV and value % 2:
            raise FrameInvalidError(f"frame.{name} is {value}; it must be even for {_name(encoding)}")
    if encoding in _RAW and data is not None:
        expected, found = raw_bytes(width, height, encoding), memoryview(data).nbytes
        if found != expected:
            kind = _name(encoding).removeprefix("ENCODING_")
            raise FrameInvalidError(
                f"frame.data has {found} bytes; {width}x{height} as {kind} has {expected} ({_RAW[encoding]})"
            )
    return FrameInfo(width, height, encoding, _colours(frame))


def _colours(frame: pb.Frame) -> NDArray[np.float32] | None:
    if frame.encoding not in _YUV:
        if frame.HasField("colour"):
            raise FrameInvalidError(f"frame.colour is for {_names(_YUV)}; {_name(frame.encoding)} has none")
        return None
    matrix = frame.colour.matrix or pb.COLOUR_MATRIX_BT709
    extent = frame.colour.range or pb.COLOUR_RANGE_LIMITED
    for name, value, known in (("matrix", matrix, pb.ColourMatrix), ("range", extent, pb.ColourRange)):
        if value not in known.values():
            accepted = ", ".join(each for each, number in known.items() if number)
            raise FrameInvalidError(f"frame.colour.{name} is {value} (unknown); accepted are: {accepted}")
    return colour_maps(_MATRICES[matrix], extent == pb.COLOUR_RANGE_FULL)


def output_format(wanted: pb.OutputFormat, frame: pb.Encoding) -> Output:
    """The wanted output with its defaults filled in, for a frame encoded as `frame`.

    Raises:
        RequestInvalidError: an unknown encoding, one that this frame cannot have, or a quality the encoding does not
            have.
    """
    encoding = wanted.encoding or (frame if frame in _YUV else pb.ENCODING_RGB24)
    if encoding not in _RAW and encoding not in _PICTURES:
        raise RequestInvalidError(f"output.encoding is {_name(encoding)}; accepted are: {_accepted()}")
    if (encoding in _YUV) != (frame in _YUV):
        accepted = _names(_YUV if frame in _YUV else {pb.ENCODING_RGB24, *_PICTURES})
        raise RequestInvalidError(
            f"output.encoding is {_name(encoding)}; accepted for a frame in {_name(frame)} are: {accepted}"
        )
    if encoding in (pb.ENCODING_JPEG, pb.ENCODING_WEBP):
        if wanted.quality > 100:
            raise RequestInvalidError(
                f"output.quality is {wanted.quality}; accepted are 1 to 100, and 0 for the default"
            )
        return Output(encoding, wanted.quality or _DEFAULT_QUALITY)
    if wanted.quality:
        raise RequestInvalidError(f"output.quality is {wanted.quality}; {_name(encoding)} has none, leave it 0")
    return Output(encoding, 0)


def decode(info: FrameInfo, data: Buffer, slot: Slot) -> None:
    """Put the frame's pixels into the slot.

    Raises:
        FrameInvalidError: the picture cannot be decoded.
    """
    if info.encoding in _AS_IN_SLOT:
        slot.source.view[:] = data
        return
    if info.encoding == pb.ENCODING_I420:
        _interleave(data, slot.source.view, info.width, info.height)
        return
    try:
        kind = _PICTURES[info.encoding]
        file, exif = pictures.plain(data, kind)
        with Image.open(io.BytesIO(file), formats=[kind]) as opened:
            turn = _orientation(opened, kind, exif)
            # A file may say two sizes: nothing is decoded, and no memory taken, but for that which was inspected.
            if _as_seen(opened, turn) != (info.width, info.height):
                raise ValueError("it has another size than its header says")
            image = opened.convert("RGB")
            pixels = np.asarray(image.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else image)
    # Whatever a decoder trips over in hostile bytes is the sender's doing; Pillow raises half a dozen unrelated kinds.
    except Exception as error:
        raise FrameInvalidError(f"frame.data is not a whole {_PICTURES[info.encoding]} picture: {error}") from error
    if pixels.shape != slot.layout.input_shape:
        raise FrameInvalidError("frame.data holds a picture of another size than its header says")
    np.frombuffer(slot.source.view, np.uint8).reshape(pixels.shape)[:] = pixels


def encode(slot: Slot, output: Output) -> Buffer:
    """The slot's answer as bytes; a view into the slot where they are the same."""
    if output.encoding in _AS_IN_SLOT:
        return slot.answer.view
    layout = slot.layout
    width, height = layout.width * layout.scale, layout.height * layout.scale
    if output.encoding == pb.ENCODING_I420:
        return _separate(slot.answer.view, width, height)
    image = Image.frombuffer("RGB", (width, height), np.frombuffer(slot.answer.view, np.uint8), "raw", "RGB", 0, 1)
    file = io.BytesIO()
    if output.encoding == pb.ENCODING_PNG:
        image.save(file, "PNG", compress_level=1)
    elif output.encoding == pb.ENCODING_JPEG:
        image.save(file, "JPEG", quality=output.quality)
    elif output.quality == 100:
        image.save(file, "WEBP", lossless=True, quality=0, method=0)  # quality is effort here: 100 takes 17 s at 4K
    else:
        image.save(file, "WEBP", quality=output.quality, method=0)
    return file.getbuffer()


def _interleave(i420: Buffer, nv12: memoryview, width: int, height: int) -> None:
    luma, chroma = width * height, width * height // 4
    planes = np.frombuffer(i420, np.uint8)
    answer = np.frombuffer(nv12, np.uint8)
    answer[:luma] = planes[:luma]
    answer[luma::2] = planes[luma : luma + chroma]
    answer[luma + 1 :: 2] = planes[luma + chroma :]


def _separate(nv12: memoryview, width: int, height: int) -> memoryview:
    luma, chroma = width * height, width * height // 4
    frame = np.frombuffer(nv12, np.uint8)
    planes = np.empty_like(frame)
    planes[:luma] = frame[:luma]
    planes[luma : luma + chroma] = frame[luma::2]
    planes[luma + chroma :] = frame[luma + 1 :: 2]
    return planes.data


def _picture_size(data: Buffer, kind: str) -> tuple[int, int]:
    """Width and height of a picture as it is shown, from its header alone."""
    try:
        file, exif = pictures.header(data, kind)
        with Image.open(io.BytesIO(file), formats=[kind]) as image:
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                raise ValueError("more than 8 bits a channel are not supported")
            return _as_seen(image, _orientation(image, kind, exif))
    except Exception as error:
        reason = "its header cannot be read" if "cannot identify" in str(error) else str(error)
        raise FrameInvalidError(f"frame.data is not a {kind} picture: {reason}") from error


def _as_seen(image: Image.Image, turn: int) -> tuple[int, int]:
    """Width and height when it is upright."""
    return (image.height, image.width) if turn in _TURNED_ORIENTATIONS else (image.width, image.height)


def _orientation(image: Image.Image, kind: str, exif: bytes) -> int:
    if _PICTURE_ENCODINGS[kind] not in _MAY_BE_TURNED:
        return 1
    return pictures.orientation(exif or image.info.get("exif", b""))


def _not_in_a_region(encoding: int) -> FrameInvalidError:
    return FrameInvalidError(f"{_name(encoding)} cannot lie in a region; accepted are: {_names(_RAW)}")


def _name(encoding: int) -> str:
    return pb.Encoding.Name(encoding) if encoding in pb.Encoding.values() else f"{encoding} (unknown)"


def _names(encodings: Iterable[int]) -> str:
    return ", ".join(pb.Encoding.Name(value) for value in sorted(encodings))


def _accepted() -> str:
    return ", ".join(name for name, value in pb.Encoding.items() if value != pb.ENCODING_UNSPECIFIED)
