"""What no service of ours says, the client library meets with an error of its own, or passes over."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from upscale_client import InternalError, OverloadedError, UnavailableError, UpscaleError
from upscale_client._calls import summary
from upscale_client._errors import from_rpc
from upscale_client._messages import answer, served, stream_answer
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Framed

RGB = pb.Frame(width=4, height=2, encoding=pb.ENCODING_RGB24)


def unknown(number: int) -> Any:
    return number


@pytest.mark.parametrize(
    ("frame", "data", "message"),
    [
        (pb.Frame(width=4, height=2, encoding=unknown(9)), b"", "its encoding is 9"),
        (pb.Frame(), None, "its encoding is 0"),
        (RGB, bytes(23), "it has 23 bytes, not those of 4x2 in rgb24"),
        (pb.Frame(width=4, height=3, encoding=pb.ENCODING_NV12), bytes(16), "not those of 4x3 in nv12"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_of_ours(frame: pb.Frame, data: bytes | None, message: str) -> None:
    with pytest.raises(InternalError, match=message):
        answer(Framed(pb.UpscaleResponse(frame=frame), data))
    in_session = stream_answer(Framed(pb.UpscaleStreamResponse(sequence=7, frame=frame), data))
    assert in_session.sequence == 7
    with pytest.raises(InternalError, match=message):
        in_session.result()


def test_networks_that_this_client_has_no_word_for_are_passed_over() -> None:
    known = pb.Variant(name="known", profile=pb.PROFILE_CLEAN, pixel_format=pb.ENCODING_RGB24)
    variants = [
        known,
        pb.Variant(name="of another profile", pixel_format=pb.ENCODING_RGB24),
        pb.Variant(name="of later days", profile=unknown(7), pixel_format=unknown(70)),
    ]
    assert [each.name for each in served(pb.ListModelsResponse(variants=variants))] == ["known"]


class Failed(grpc.RpcError):
    def __init__(self, details: bytes, code: grpc.StatusCode = grpc.StatusCode.RESOURCE_EXHAUSTED) -> None:
        self._details = details
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "no room"

    def trailing_metadata(self) -> Any:
        return [("grpc-status-details-bin", self._details)]


def test_details_of_an_error_that_cannot_be_read_leave_the_error() -> None:
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="OVERLOADED"))
    status.details[0].value = b"\xff"
    for details in (b"\xff", status.SerializeToString()):
        error: UpscaleError = from_rpc(Failed(details))
        assert isinstance(error, OverloadedError)
        assert (str(error), error.reason) == ("no room", "")


def test_a_connection_that_breaks_in_the_middle_of_an_answer_is_worth_another_try() -> None:
    error = from_rpc(Failed(b"", grpc.StatusCode.UNKNOWN))
    assert isinstance(error, UnavailableError)
    assert error.retryable


def test_a_summary_that_cannot_be_read_is_an_error_of_ours() -> None:
    with pytest.raises(InternalError, match="summary is not understood"):
        summary((("upscale-summary-bin", b"\xff"),))
