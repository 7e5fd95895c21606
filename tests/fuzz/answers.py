"""What the client library takes from a service: it gives answers or its own errors, whatever comes."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from tests.fuzz.fuzzed import Fuzzed
from upscale_client import UpscaleError, _errors, _messages, wire
from upscale_client.v1 import upscale_pb2 as pb

_PICTURES = ("png", "jpeg", "webp")


class Answers(Fuzzed):
    """The first byte says what it is."""

    def seeds(self) -> Sequence[bytes]:
        frame = pb.Frame(width=4, height=2, encoding=pb.ENCODING_RGB24, data=bytes(24))
        nv12 = pb.Frame(width=4, height=2, encoding=pb.ENCODING_NV12, data=bytes(12))
        times = pb.StageTimes(infer=Duration(nanos=9))
        variant = pb.Variant(
            name="runet_x2_clean",
            profile=pb.PROFILE_CLEAN,
            pixel_format=pb.ENCODING_RGB24,
            batch_times=[pb.BatchTime(endpoint="a:1", predicted=Duration(nanos=1))],
        )
        status = status_pb2.Status(code=8, message="no room")
        for detail in (
            error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="upscale.v1"),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1)),
            error_details_pb2.RequestInfo(request_id="abc"),
        ):
            status.details.add().Pack(detail)
        error = pb.FrameError(code=14, reason="BACKEND_UNAVAILABLE", retry_after=Duration(seconds=2))
        return [
            b"\0" + pb.UpscaleResponse(model="runet", times=times, frame=frame).SerializeToString(),
            b"\0" + pb.UpscaleResponse(frame=nv12).SerializeToString(),
            b"\1" + pb.UpscaleStreamResponse(sequence=3, frame=frame).SerializeToString(),
            b"\1" + pb.UpscaleStreamResponse(error=error).SerializeToString(),
            b"\2" + pb.ListModelsResponse(variants=[variant]).SerializeToString(),
            b"\3" + status.SerializeToString(),
        ]

    def one(self, data: bytes) -> None:
        if not data:
            return
        kind, sent = data[0] % 4, data[1:]
        try:
            if kind == 0:
                _look_at(_messages.answer(wire.parse(pb.UpscaleResponse, sent)))
            elif kind == 1:
                _look_at(_messages.stream_answer(wire.parse(pb.UpscaleStreamResponse, sent)).result())
            elif kind == 2:
                _messages.served(pb.ListModelsResponse.FromString(sent))
            else:
                _errors._details(sent)  # pyright: ignore[reportPrivateUsage]
        except UpscaleError:
            pass
        except wire.DecodeError:
            assert kind != 3, "gRPC makes an error of a message that it cannot read, but not of a status' details"


def _look_at(answer: _messages.Upscaled) -> None:
    if answer.encoding not in _PICTURES and answer.data:
        assert answer.array.nbytes == memoryview(answer.data).nbytes


ANSWERS = Answers()
