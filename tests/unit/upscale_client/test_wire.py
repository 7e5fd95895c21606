"""The hand-written wire form is protobuf's: held equal to the generated classes, on valid and on broken messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import (
    DecodeError,
    Framed,
    _varint,  # pyright: ignore[reportPrivateUsage]
    parse,
    serialise,
)

Message = Any  # any of the four messages with frames

refs = st.builds(pb.RegionRef, handle=st.text(max_size=40), offset=st.integers(0, 2**64 - 1))
colours = st.builds(pb.Colour, matrix=st.sampled_from([0, 1, 2]), range=st.sampled_from([0, 1, 2]))
heads = st.builds(
    pb.Frame,
    width=st.integers(0, 2**32 - 1),
    height=st.integers(0, 2**32 - 1),
    encoding=st.integers(0, 9),
    colour=st.none() | colours,
    region=st.none() | refs,
)
payloads = st.none() | st.binary(max_size=300)


@st.composite
def frames(draw: st.DrawFn) -> pb.Frame | None:
    frame = draw(st.none() | heads)
    data = draw(payloads)
    if data is not None:
        frame = frame or pb.Frame()
        frame.data = data
    return frame


messages = st.one_of(
    st.builds(
        pb.UpscaleRequest,
        model=st.text(max_size=10),
        scale=st.integers(0, 2**32 - 1),
        profile=st.integers(0, 3),
        output=st.none() | st.builds(pb.OutputFormat, quality=st.integers(0, 200)),
        priority=st.integers(0, 3),
        step_down=st.booleans(),
        answer=st.none() | refs,
        frame=frames(),
    ),
    st.builds(pb.UpscaleResponse, variant=st.text(max_size=10), batch_frames=st.integers(0, 2**32 - 1), frame=frames()),
    st.builds(
        pb.UpscaleStreamRequest,
        options=st.none() | st.builds(pb.StreamOptions, window=st.integers(0, 9), priority=st.integers(0, 3)),
        sequence=st.integers(0, 2**64 - 1),
        presentation_time=st.integers(-(2**63), 2**63 - 1),
        frame=frames(),
    ),
    st.builds(
        pb.UpscaleStreamResponse,
        sequence=st.integers(0, 2**64 - 1),
        error=st.none()
        | st.builds(
            pb.FrameError,
            code=st.integers(0, 16),
            message=st.text(max_size=9),
            retry_after=st.none() | st.builds(Duration, nanos=st.integers(0, 999_999_999)),
        ),
        frame=frames(),
    ),
)


def framed(message: Message) -> Framed[Any]:
    """The message with its data beside it."""
    copy = type(message)()
    copy.CopyFrom(message)
    if message.frame.WhichOneof("payload") != "data":
        return Framed(copy)
    copy.frame.ClearField("data")
    return Framed(copy, message.frame.data)


def whole(taken: Framed[Any]) -> Message:
    """The message with its data inside."""
    message = type(taken.message)()
    message.CopyFrom(taken.message)
    if taken.data is not None:
        message.frame.data = bytes(taken.data)
    return message


@given(messages)
def test_what_is_serialised_here_is_parsed_by_protobuf(message: Message) -> None:
    assert type(message).FromString(serialise(framed(message))) == message


@given(messages)
def test_what_protobuf_serialises_is_parsed_here(message: Message) -> None:
    assert parse(type(message), message.SerializeToString()) == framed(message)


@settings(max_examples=2000)
@given(messages, st.data())
def test_damaged_bytes_mean_the_same_to_both(message: Message, data: st.DataObject) -> None:
    """Bytes changed, cut out, doubled or put in: either both refuse them, or both read the same."""
    wire = bytearray(
        message.SerializeToString() + data.draw(st.just(b"") | messages.map(lambda m: m.SerializeToString()))
    )
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(wire)))
        length = data.draw(st.integers(0, 12))
        wire[place : place + length] = data.draw(st.binary(max_size=6))
    kind = type(message)
    try:
        expected = kind.FromString(bytes(wire))
    except DecodeError:
        with pytest.raises(DecodeError):
            parse(kind, bytes(wire))
        return
    assert whole(parse(kind, bytes(wire))).SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


def nested(depth: int) -> bytes:
    """A frame with unknown groups in its colour, one in another."""
    groups = b"\x2b" * depth + b"\x2c" * depth
    colour = b"\x22" + _varint(len(groups)) + groups
    return b"\x7a" + _varint(len(colour)) + colour


@pytest.mark.parametrize(
    "wire",
    [
        *(pytest.param(nested(depth), id=f"{depth} groups") for depth in (97, 98, 99, 100, 101)),
        pytest.param(b"\xfa\x80\x80\x80\x00\x02\x08\x10", id="a key of five bytes"),
        pytest.param(b"\xfa\x80\x80\x80\x80\x00\x02\x08\x10", id="a key of six bytes"),
        pytest.param(b"\x7a\x82\x80\x80\x80\x80\x80\x00\x08\x10", id="a length of seven bytes"),
    ],
)
def test_what_is_at_the_edge_of_what_protobuf_takes_means_the_same_to_both(wire: bytes) -> None:
    try:
        expected = pb.UpscaleRequest.FromString(wire)
    except DecodeError:
        with pytest.raises(DecodeError, match="UpscaleRequest"):
            parse(pb.UpscaleRequest, wire)
        return
    assert whole(parse(pb.UpscaleRequest, wire)) == expected


def test_the_pixels_are_not_copied_by_parsing() -> None:
    wire = pb.UpscaleRequest(frame=pb.Frame(data=bytes(1000))).SerializeToString()
    taken = parse(pb.UpscaleRequest, wire)
    assert isinstance(taken.data, memoryview)
    assert taken.data.obj is wire


def test_any_buffer_is_a_payload() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    wire = serialise(Framed(pb.UpscaleRequest(scale=2), pixels.data))
    assert pb.UpscaleRequest.FromString(wire).frame.data == pixels.tobytes()
