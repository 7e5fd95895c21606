"""What nobody foresaw on a frame's way."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from service import trace_context
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    BudgetTooSmallError,
    InternalError,
    ModelUnknownError,
    OverloadedError,
)
from service.failures import FailureLog
from service.line import Caller, FrameLine
from service.metrics import OUTCOMES, Metrics
from service.timing import StageClock
from service.wishes import Wish
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


class _Nothing:
    """A catalogue that raises."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def resolve(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "waited_s", "outcome"),
    [
        (OverloadedError(""), 0, "refused"),
        (BudgetTooSmallError(""), 0, "too_small"),
        (BudgetSpentError(""), 0, "spent"),
        (BackendUnavailableError(""), 0, "failed"),
        (RuntimeError("a bug"), 0, "failed"),
        (ModelUnknownError(""), 0, "void"),
        (asyncio.CancelledError(), 0, "void"),
        (asyncio.CancelledError(), 60, "spent"),  # its client has waited as long as it wanted to
    ],
)
async def test_how_a_frame_with_a_budget_ended(error: BaseException, waited_s: float, outcome: str) -> None:
    nothing: Any = None
    catalog: Any = _Nothing(error)
    metrics = Metrics()
    line = FrameLine(catalog, nothing, nothing, nothing, metrics, nothing, 16, FailureLog(10))
    options = pb.StreamOptions()
    options.budget.seconds = 30
    frame = pb.Frame(width=16, height=16, encoding=pb.ENCODING_RGB24)
    with pytest.raises(BaseException):  # noqa: B017, PT011 - which one is told by other tests
        await line.upscale(
            Caller("UpscaleStream", "ipv4:127.0.0.1:1"),
            lambda: Wish.of(options),
            Framed(pb.UpscaleStreamRequest(frame=frame), memoryview(bytes(16 * 16 * 3))),
            StageClock(time.perf_counter() - waited_s),
        )
    found = {
        each: metrics.registry.get_sample_value(
            "upscale_budget_frames_total", {"variant": "", "priority": "live", "outcome": each}
        )
        for each in OUTCOMES
    }
    assert found == {each: float(each == outcome) for each in OUTCOMES}
