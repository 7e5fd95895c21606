"""What nobody foresaw on a frame's way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service import codec, trace_context
from service.catalog import Catalog, Variant
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    BudgetTooSmallError,
    InternalError,
    ModelUnknownError,
    OverloadedError,
)
from service.failures import FailureLog
from service.frames import FrameStore, SlotBatch
from service.line import Caller, FrameLine
from service.metrics import OUTCOMES, Metrics
from service.regions import Regions
from service.scheduler import Scheduler
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


class _Triton:
    """Answers soon."""

    url = "triton"

    async def infer(self, variant: Variant, batch: SlotBatch) -> None:
        await asyncio.sleep(0.01)


@pytest.fixture
def line() -> Iterator[FrameLine]:
    """Of a service that answers 16x16 pixels."""
    variant = Variant("runet_x2_clean", "runet", 2, "clean", 1, trained=True, instances=1)
    catalog = Catalog("runet", "clean", 32 * 32)
    catalog.update([variant])
    metrics = Metrics()
    frames = FrameStore(max_frames=4, max_bytes=1 << 16)
    scheduler = Scheduler(frames)
    scheduler.join(_Triton(), [variant])
    with ThreadPoolExecutor(1) as codecs:
        regions = Regions(frames, 1)
        yield FrameLine(catalog, frames, regions, scheduler, metrics, codecs, 16, FailureLog(10))
    assert frames.in_use == 0, "a slot was lost"
    frames.close()


async def test_a_hiccup_beside_the_inference_is_not_for_ever(line: FrameLine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answered(budget_s: float) -> bool:
        options = pb.StreamOptions()
        options.budget.seconds, options.budget.nanos = divmod(round(budget_s * 1e9), 10**9)
        frame = pb.Frame(width=16, height=16, encoding=pb.ENCODING_RGB24)
        framed = Framed(pb.UpscaleStreamRequest(frame=frame), memoryview(bytes(16 * 16 * 3)))
        clock = StageClock(time.perf_counter())
        try:
            with await line.upscale(Caller("UpscaleStream", None), lambda: Wish.of(options), framed, clock):
                return True
        except (BudgetTooSmallError, BudgetSpentError):
            return False

    with monkeypatch.context() as hiccup:
        encode = codec.encode

        def held_up(*arguments: Any) -> Any:
            time.sleep(0.3)
            return encode(*arguments)

        hiccup.setattr(codec, "encode", held_up)
        assert [await answered(budget_s=30) for _ in range(2)] == [True, True]
    started = time.monotonic()
    seen: list[bool] = []
    while seen[-3:] != [True] * 3 and time.monotonic() < started + 30:
        assert not await answered(budget_s=0.005), "the inference alone takes longer"
        seen.append(await answered(budget_s=0.1))
        await asyncio.sleep(0.02)
    assert seen[:2] == [True, False], "of those that would be late one is tried, no more"
    assert seen[-3:] == [True] * 3, "frames are refused for what was slow once"


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
