"""Between a frame's bytes and its pixels in a slot. Knows every encoding, and trusts none of them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from service.errors import FrameInvalidError, RequestInvalidError
from service.frames import Slot
from service.settings import RGB_BYTES
from upscale_client.v1 import upscale_pb2 as pb

_PICTURES = {pb.ENCODING_PNG: "PNG", pb.ENCODING_JPEG: "JPEG", pb.ENCODING_WEBP: "WEBP"}
_PICTURE_ENCODINGS = {kind: encoding for encoding, kind in _PICTURES.items()}
# Cameras say in a header how they were held. A PNG may say it after its pixels, which we will not decode to find out.
_MAY_BE_TURNED = frozenset({pb.ENCODING_JPEG, pb.ENCODING_WEBP})
_DEFAULT_QUALITY = 90
# Sizes are checked against our own limit, from the header, before Pillow decodes anything; its own check only warns.
Image.MAX_IMAGE_PIXELS = None
_ORIENTATION_TAG = 0x0112
_TURNED_ORIENTATIONS = frozenset({5, 6, 7, 8})


@dataclass(frozen=True)
class FrameInfo:
    """What a frame says of itself, checked as far as its header goes."""

    width: int
    height: int
    encoding: pb.Encoding
    data: bytes


@dataclass(frozen=True)
class Output:
    """How an answer is encoded."""

    encoding: pb.Encoding
    quality: int


def needs_thread(encoding: int) -> bool:
    """Whether decoding or encoding takes long enough to be done outside the event loop; raw frames are just copied."""
    return encoding in _PICTURES


def inspect(frame: pb.Frame, min_side: int) -> FrameInfo:
    """Check everything about a frame that can be checked without decoding it.

    Raises:
        FrameInvalidError: the size, the encoding or the byte count is wrong, or there is no such picture in the bytes.
    """
    if frame.WhichOneof("payload") is None:
        raise FrameInvalidError("frame.data is missing")
    if frame.encoding == pb.ENCODING_RGB24:
        width, height = frame.width, frame.height
    elif frame.encoding in _PICTURES:
        width, height = _picture_size(frame.data, _PICTURES[frame.encoding])
        for name, said, found in (("width", frame.width, width), ("height", frame.height, height)):
            if said not in (0, found):
                raise FrameInvalidError(f"frame.{name} is {said}, but the picture's {name} is {found}")
    else:
        raise FrameInvalidError(f"frame.encoding is {_name(frame.encoding)}; accepted are: {_accepted()}")
    for name, value in (("width", width), ("height", height)):
        if value < min_side:
            raise FrameInvalidError(f"frame.{name} is {value}; the least is {min_side}")
    expected = RGB_BYTES * width * height
    if frame.encoding == pb.ENCODING_RGB24 and len(frame.data) != expected:
        raise FrameInvalidError(
            f"frame.data has {len(frame.data)} bytes; {width}x{height} as RGB24 has {expected} (3 * width * height)"
        )
    return FrameInfo(width, height, frame.encoding, frame.data)


def output_format(wanted: pb.OutputFormat) -> Output:
    """The wanted output with its defaults filled in.

    Raises:
        RequestInvalidError: an unknown encoding, or a quality the encoding does not have.
    """
    encoding = wanted.encoding or pb.ENCODING_RGB24
    if encoding != pb.ENCODING_RGB24 and encoding not in _PICTURES:
        raise RequestInvalidError(f"output.encoding is {_name(encoding)}; accepted are: {_accepted()}")
    if encoding in (pb.ENCODING_JPEG, pb.ENCODING_WEBP):
        if wanted.quality > 100:
            raise RequestInvalidError(
                f"output.quality is {wanted.quality}; accepted are 1 to 100, and 0 for the default"
            )
        return Output(encoding, wanted.quality or _DEFAULT_QUALITY)
    if wanted.quality:
        raise RequestInvalidError(f"output.quality is {wanted.quality}; {_name(encoding)} has none, leave it 0")
    return Output(encoding, 0)


def decode(info: FrameInfo, slot: Slot) -> None:
    """Put the frame's pixels into the slot.

    Raises:
        FrameInvalidError: the picture cannot be decoded.
    """
    if info.encoding == pb.ENCODING_RGB24:
        slot.input[:] = info.data
        return
    try:
        with Image.open(io.BytesIO(info.data), formats=[_PICTURES[info.encoding]]) as opened:
            image = ImageOps.exif_transpose(opened) if info.encoding in _MAY_BE_TURNED else opened
            pixels = np.asarray(image.convert("RGB"))
    # Whatever a decoder trips over in hostile bytes is the sender's doing; Pillow raises half a dozen unrelated kinds.
    except Exception as error:
        raise FrameInvalidError(f"frame.data is not a whole {_PICTURES[info.encoding]} picture: {error}") from error
    if pixels.shape != (info.height, info.width, RGB_BYTES):
        raise FrameInvalidError("frame.data holds a picture of another size than its header says")
    np.frombuffer(slot.input, np.uint8).reshape(pixels.shape)[:] = pixels


def encode(slot: Slot, output: Output) -> bytes:
    """The slot's answer as bytes."""
    if output.encoding == pb.ENCODING_RGB24:
        return bytes(slot.output)
    size = slot.lane.size
    shape = (size.width * size.scale, size.height * size.scale)
    image = Image.frombuffer("RGB", shape, np.frombuffer(slot.output, np.uint8), "raw", "RGB", 0, 1)
    file = io.BytesIO()
    if output.encoding == pb.ENCODING_PNG:
        image.save(file, "PNG", compress_level=1)
    elif output.encoding == pb.ENCODING_JPEG:
        image.save(file, "JPEG", quality=output.quality)
    elif output.quality == 100:
        image.save(file, "WEBP", lossless=True, quality=0, method=0)  # quality is effort here: 100 takes 17 s at 4K
    else:
        image.save(file, "WEBP", quality=output.quality, method=0)
    return file.getvalue()


def _picture_size(data: bytes, kind: str) -> tuple[int, int]:
    """Width and height of a picture as it is shown, from its header alone."""
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as image:
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                raise ValueError("more than 8 bits a channel are not supported")
            may_be_turned = _PICTURE_ENCODINGS[kind] in _MAY_BE_TURNED
            turned = may_be_turned and image.getexif().get(_ORIENTATION_TAG) in _TURNED_ORIENTATIONS
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception as error:
        reason = "its header cannot be read" if "cannot identify" in str(error) else str(error)
        raise FrameInvalidError(f"frame.data is not a {kind} picture: {reason}") from error


def _name(encoding: int) -> str:
    return pb.Encoding.Name(encoding) if encoding in pb.Encoding.values() else f"{encoding} (unknown)"


def _accepted() -> str:
    return ", ".join(name for name, value in pb.Encoding.items() if value != pb.ENCODING_UNSPECIFIED)
