"""The hand-written parser of frames' messages: it must take what protobuf takes, mean the same, and refuse the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tests.fuzz.fuzzed import Fuzzed
from upscale_client import wire
from upscale_client.v1 import upscale_pb2 as pb

_KINDS: Sequence[Any] = (pb.UpscaleRequest, pb.UpscaleResponse, pb.UpscaleStreamRequest, pb.UpscaleStreamResponse)


class Wire(Fuzzed):
    """The first byte says which message, the others are it."""

    def seeds(self) -> Sequence[bytes]:
        frame = pb.Frame(
            width=4,
            height=2,
            encoding=pb.ENCODING_RGB24,
            colour=pb.Colour(matrix=pb.COLOUR_MATRIX_BT709),
            data=bytes(24),
        )
        region = pb.Frame(width=4, height=2, region=pb.RegionRef(handle="abc", offset=7))
        messages = [
            pb.UpscaleRequest(model="runet", scale=2, budget=Duration(seconds=1), frame=frame),
            pb.UpscaleResponse(model="runet", variant="runet_x2_clean", batch_frames=3, frame=frame),
            pb.UpscaleStreamRequest(options=pb.StreamOptions(window=2), sequence=9, frame=frame),
            pb.UpscaleStreamResponse(error=pb.FrameError(code=8, message="no"), presentation_time=-1, frame=frame),
        ]
        plain = [bytes((number,)) + message.SerializeToString() for number, message in enumerate(messages)]
        twice = [seed + message.SerializeToString() for seed, message in zip(plain, messages, strict=True)]
        placed = [b"\0" + pb.UpscaleRequest(frame=region, answer=region.region).SerializeToString()]
        groups = b"\x7a\x0a\x22\x08" + b"\x2b" * 4 + b"\x2c" * 4
        return [*plain, *twice, *placed, b"\0" + groups, b"\0\xfa\x80\x80\x80\x00\x02\x08\x10"]

    def one(self, data: bytes) -> None:
        if not data:
            return
        kind, sent = _KINDS[data[0] % len(_KINDS)], data[1:]
        try:
            expected = kind.FromString(sent)
        except wire.DecodeError:
            expected = None
        try:
            taken = wire.parse(kind, sent)
        except wire.DecodeError:
            assert expected is None, "refused, and protobuf takes it"
            return
        assert expected is not None, "taken, and protobuf refuses it"
        assert not taken.message.frame.data, "the pixels are in the message"
        again = wire.serialise(taken)
        assert kind.FromString(again).SerializeToString(deterministic=True) == expected.SerializeToString(
            deterministic=True
        ), "it means another thing than to protobuf"
        assert wire.parse(kind, again) == taken, "it is another one after a round trip"


WIRE = Wire()
