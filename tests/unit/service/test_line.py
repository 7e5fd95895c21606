"""What nobody foresaw on a frame's way."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from service import trace_context
from service.errors import InternalError
from service.failures import FailureLog
from service.line import Caller, FrameLine, Wish
from service.metrics import Metrics
from service.timing import StageClock
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Framed


async def test_a_bug_fails_its_frame_alone_and_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    nothing: Any = None  # so that the first use of the catalogue fails
    line = FrameLine(nothing, nothing, nothing, nothing, Metrics(), nothing, 16, FailureLog(10))
    frame = pb.Frame(width=16, height=16, encoding=pb.ENCODING_RGB24)
    request = pb.UpscaleStreamRequest(sequence=7, frame=frame)
    trace = "0af7651916cd43dd8448eb211c80319c"
    token = trace_context.parent.set(trace_context.TraceParent(trace, {}))
    try:
        with pytest.raises(InternalError, match="the server's log says more") as caught:
            await line.upscale(
                Caller("UpscaleStream", "ipv4:127.0.0.1:1"),
                lambda: Wish.of(pb.StreamOptions(model="runet")),
                Framed(request, memoryview(bytes(16 * 16 * 3))),
                StageClock(0.0),
            )
    finally:
        trace_context.parent.reset(token)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[0] is AttributeError
    told: dict[str, Any] = record.__dict__
    assert caught.value.request_id == told["request_id"] == told["trace_id"] == trace
    assert (told["sequence"], told["model"], told["client"]) == (7, "runet", "ipv4:127.0.0.1:1")
    assert told["failed_in"] == "receive"
