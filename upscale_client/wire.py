"""The messages that carry frames, to and from their bytes on the wire, without a needless copy of the pixels.

Protobuf copies a payload on its way in and out of a message, and a 4K frame is 25 MB. Here the payload stays outside:
parsing gives a view into the bytes that came, serialising joins it to the rest in one copy. What is on the wire is the
protobuf encoding of upscale.proto, nothing else; tests hold both directions equal to the generated classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from upscale_client.v1 import upscale_pb2 as pb

M = TypeVar(
    "M", pb.UpscaleRequest, pb.UpscaleResponse, pb.UpscaleStreamRequest, pb.UpscaleStreamResponse
)  # all have `Frame frame = 15`
Buffer = bytes | bytearray | memoryview

_FRAME = _DATA = (15 << 3) | 2  # the key of a field 15 that has a length: the frame in its message, the data in a frame
_REGION = (14 << 3) | 2
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_KEY_BYTES = 5
"""The most that a key may take; a varint may say a small number in ten."""


@dataclass(frozen=True)
class Framed(Generic[M]):
    """A message, and its frame's bytes beside it.

    `message.frame.data` is never set: `data` is it, or None if the frame has none.
    """

    message: M
    data: Buffer | None = None


class _UnusualError(Exception):
    """Valid or not, it is for the generated class to say."""


def parse(kind: type[M], wire: bytes) -> Framed[M]:
    """A message from the wire; its data is a view into `wire`.

    Raises:
        DecodeError: `wire` is not such a message.
    """
    try:
        return _parse_usual(kind, wire)
    except _UnusualError:
        message = kind.FromString(wire)
    data = message.frame.data if message.frame.WhichOneof("payload") == "data" else None
    if data is not None:
        message.frame.ClearField("data")
    return Framed(message, data)


def serialise(framed: Framed[M]) -> bytes:
    """A message as it goes on the wire."""
    message, data = framed.message, framed.data
    if data is None:
        return message.SerializeToString()
    frame = message.frame.SerializeToString()
    head = type(message)()
    head.CopyFrom(message)
    head.ClearField("frame")
    data_key = bytes((_DATA,)) + _varint(memoryview(data).nbytes)
    frame_key = bytes((_FRAME,)) + _varint(len(frame) + len(data_key) + memoryview(data).nbytes)
    return b"".join((head.SerializeToString(), frame_key, frame, data_key, data))


def _parse_usual(kind: type[M], wire: bytes) -> Framed[M]:
    """Parse a message with at most one frame, with at most one payload."""
    view = memoryview(wire)
    frame: tuple[int, int] | None = None
    rest: list[memoryview] = []
    position = 0
    while position < len(wire):
        key, start, end = _field(view, position, len(wire))
        if key != _FRAME:
            rest.append(view[position:end])
        elif frame is None:
            frame = (start, end)
        else:
            raise _UnusualError
        position = end
    if frame is None:
        return Framed(kind.FromString(b"".join(rest)))
    data: memoryview | None = None
    head: list[memoryview] = []
    region = False
    position, frame_end = frame
    while position < frame_end:
        key, start, end = _field(view, position, frame_end)
        if key != _DATA:
            region |= key == _REGION
            head.append(view[position:end])
        elif data is None:
            data = view[start:end]
        else:
            raise _UnusualError
        position = end
    if region and data is not None:
        raise _UnusualError  # which of the two counts depends on their order
    # The frame's other fields where they were, for how deep a field lies decides whether protobuf takes it.
    frame_key = bytes((_FRAME,)) + _varint(sum(map(len, head)))
    return Framed(kind.FromString(b"".join((*rest, frame_key, *head))), data)


def _field(view: memoryview, position: int, limit: int) -> tuple[int, int, int]:
    """The key of the field at `position`, and where its content begins and the field ends."""
    key, start = _read_varint(view, position, limit)
    if start > position + _KEY_BYTES:
        raise _UnusualError
    kind = key & 7
    if kind == _LENGTH:
        size, start = _read_varint(view, start, limit)
        end = start + size
    elif kind == _VARINT:
        _, end = _read_varint(view, start, limit)
    elif kind == _FIXED32:
        end = start + 4
    elif kind == _FIXED64:
        end = start + 8
    else:
        raise _UnusualError
    if end > limit or key < 8 or key >= 1 << 32:
        raise _UnusualError
    return key, start, end


def _read_varint(view: memoryview, position: int, limit: int) -> tuple[int, int]:
    value = shift = 0
    while position < limit and shift < 63:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _UnusualError


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


__all__ = ["Buffer", "DecodeError", "Framed", "parse", "serialise"]
