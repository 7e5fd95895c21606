"""Runs what is planned: takes frames to the planner, batches to Triton, and answers back to the frames' callers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from service.catalog import Variant
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    BudgetTooSmallError,
    InternalError,
    OverloadedError,
    ShuttingDownError,
    UpscaleError,
)
from service.frame_job import FrameJob
from service.frames import FrameFormat, FrameStore, Slot, SlotBatch
from service.scheduling.clock import BatchClock
from service.scheduling.jobs import Batch, Job, Work
from service.scheduling.planner import Planner

if TYPE_CHECKING:
    from service.tracing import Tracing

_PROBE_EVERY_S = 0.5
_PROBE_TIMEOUT_S = 10.0


class InferenceBackend(Protocol):
    """What the scheduler needs of an inference server."""

    @property
    def url(self) -> str:
        """Its name."""
        ...

    async def infer(self, variant: Variant, batch: SlotBatch) -> None:
        """Fill the batch's outputs from its inputs.

        Raises:
            UpscaleError: with the reason; the whole batch fails with it, or is inferred elsewhere.
        """
        ...


class BatchTime(NamedTuple):
    """What a batch is expected to take, at most as a rule."""

    endpoint: str
    variant: str
    layout: FrameFormat
    frames: int
    seconds: float


class Scheduler:
    """The planner's hands.

    Args:
        frames: where slots are.
        on_batch: called with the variant's name and the number of frames of every batch that begins.
        on_drop: called with the variant's name and a reason for every frame that is given up before it is inferred.
        on_failure: called with the endpoint's and the variant's names for every batch that fails.
        tracing: makes the batches' spans.
    """

    def __init__(
        self,
        frames: FrameStore,
        *,
        on_batch: Callable[[str, int], None] = lambda variant, frames: None,
        on_drop: Callable[[str, str], None] = lambda variant, reason: None,
        on_failure: Callable[[str, str], None] = lambda endpoint, variant: None,
        tracing: Tracing | None = None,
    ) -> None:
        self._frames = frames
        self._on_batch = on_batch
        self._on_drop = on_drop
        self._on_failure = on_failure
        self._tracing = tracing
        self._clock = BatchClock(lambda layout: cast("FrameFormat", layout).input_bytes)
        self._planner = Planner(self._clock)
        self._backends: dict[str, tuple[InferenceBackend, Mapping[str, Variant]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._probing = False
        self._probe_at = -math.inf
        self._closed = False

    def join(self, backend: InferenceBackend, variants: Iterable[Variant]) -> None:
        """An endpoint is there, or serves other variants than before."""
        serving = {variant.name: variant for variant in variants}
        self._backends[backend.url] = (backend, serving)
        executors = max(variant.instances for variant in serving.values())
        most = {name: variant.max_batch_frames for name, variant in serving.items()}
        self._give_up(self._planner.join(backend.url, executors, most, time.monotonic()))
        self._pump()

    def leave(self, endpoint: str) -> None:
        """An endpoint is gone; its last batches end by themselves."""
        if self._backends.pop(endpoint, None) is not None:
            self._give_up(self._planner.leave(endpoint, time.monotonic()))
            self._pump()

    def measured(self, endpoint: str, variant: Variant, layout: FrameFormat, frames: int, seconds: float) -> None:
        """A batch of nobody's was inferred there, to learn how long it takes."""
        self._clock.record(endpoint, Work(variant.name, layout), frames, seconds, time.monotonic())

    def times(self) -> Iterator[BatchTime]:
        """What batches are expected to take, as far as such have run."""
        for endpoint, work, frames, seconds in self._clock.known():
            yield BatchTime(endpoint, work.variant, cast("FrameFormat", work.layout), frames, seconds)

    def waiting(self) -> Mapping[str, int]:
        """Frames that wait, by variant."""
        counts: dict[str, int] = {}
        for job in self._planner.waiting:
            counts[job.work.variant] = counts.get(job.work.variant, 0) + 1
        return counts

    def admit(self, job: FrameJob) -> None:
        """Accept a frame into the plan; it may have a slot then, and must have one when `infer` is called, at once.

        Raises:
            BudgetTooSmallError: even an idle service would be too slow.
            OverloadedError: this one would be, now.
            ShuttingDownError: the scheduler was closed.
        """
        if self._closed:
            raise ShuttingDownError("the gateway is stopping")
        now = time.monotonic()
        verdict = self._planner.offer(job, now)
        if verdict.accepted:
            return
        left_ms = 1000 * max(0.0, job.deadline - now)
        needed_ms = 1000 * (verdict.finish - now)
        if verdict.retry_after is not None:
            raise OverloadedError(
                f"the answer would be there in {needed_ms:.1f} ms, and must be in {left_ms:.1f} ms; try again later",
                verdict.retry_after,
            )
        work = job.choices[-1]
        self._probe(job, now)
        size = f"{job.layout.width}x{job.layout.height}"
        raise BudgetTooSmallError(
            f"budget: {left_ms:.1f} ms are left for the inference, and {work.variant} takes {needed_ms:.1f} ms for a "
            f"frame of {size} on an idle service; accepted is more, or a lesser model"
        )

    def withdraw(self, job: FrameJob) -> None:
        """Its caller gives an accepted frame up."""
        self._planner.withdraw(job)
        self._pump()

    async def infer(self, job: FrameJob) -> int:
        """Wait for an accepted frame's answer in its slot; returns the number of frames in its batch.

        The caller holds the slot, and so does the scheduler while a batch runs. It may be another afterwards: a frame
        that is inferred again elsewhere lies where no late answer can reach it.

        Raises:
            BudgetSpentError: its deadline passed before it could be inferred.
            ShuttingDownError: the scheduler was closed.
            UpscaleError: what the last endpoint said.
        """
        assert job.slot is not None
        alarm = None
        if job.deadline < math.inf:
            loop = asyncio.get_running_loop()
            alarm = loop.call_later(max(0.0, job.deadline - time.monotonic()), self._expire, job)
        try:
            self._pump()
            return await job.done
        finally:
            if alarm is not None:
                alarm.cancel()
            if self._planner.withdraw(job):  # the caller has gone
                self._on_drop(job.work.variant, "cancelled")
                self._pump()
            if not job.done.done():
                job.done.cancel()

    async def close(self) -> None:
        """Refuse what waits, and wait for the batches that run."""
        self._closed = True
        if self._wake is not None:
            self._wake.cancel()
        for job in list(self._planner.waiting):
            self._planner.withdraw(job)
            _fail(cast("FrameJob", job), ShuttingDownError("the gateway is stopping"))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _pump(self) -> None:
        """Begin what can begin."""
        now = time.monotonic()
        batches, dropped = self._planner.start(now)
        for job in cast("list[FrameJob]", dropped):
            self._expired(job)
        for batch in batches:
            jobs = cast("list[FrameJob]", batch.jobs)
            self._on_batch(batch.work.variant, len(jobs))
            slots: list[Slot] = []
            for job in jobs:
                assert job.slot is not None
                job.slot.hold()
                slots.append(job.slot)
                job.on_begin()
            backend, variants = self._backends[batch.endpoint]
            self._spawn(self._run(batch, backend, variants[batch.work.variant], slots))
        self._set_alarm(now)

    def _set_alarm(self, now: float) -> None:
        """Come back when an idle executor may begin offline frames."""
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        moment = self._planner.wake_at()
        if moment is not None and not self._closed:
            self._wake = asyncio.get_running_loop().call_later(max(1e-3, moment - now), self._pump)

    async def _run(self, batch: Batch, backend: InferenceBackend, variant: Variant, slots: Sequence[Slot]) -> None:
        jobs = cast("list[FrameJob]", batch.jobs)
        traced = self._tracing and self._tracing.batch(batch.endpoint, variant.name, [job.span for job in jobs])
        try:
            with traced or contextlib.nullcontext():
                await backend.infer(variant, SlotBatch(slots))
        except Exception as error:
            self._failed(batch, error)
        else:
            now = time.monotonic()
            self._planner.finish(batch, now)
            for job in jobs:
                job.finished_at = now
                if not job.done.done():
                    job.done.set_result(len(jobs))
        finally:
            for slot in slots:
                slot.release()
        self._pump()

    def _failed(self, batch: Batch, error: Exception) -> None:
        """Have another endpoint infer the frames, if there is one and time enough; else tell their callers."""
        self._on_failure(batch.endpoint, batch.work.variant)
        # What is the client's fault, or a bug of ours, would fail on another endpoint just as well.
        elsewhere = isinstance(error, BackendUnavailableError | InternalError) and not self._closed
        jobs = cast("list[FrameJob]", list(batch.jobs))
        lost = self._planner.fail(
            batch, time.monotonic(), elsewhere=lambda job: elsewhere and cast("FrameJob", job).let_go()
        )
        for job in jobs:
            if job in lost:
                _fail(job, _own(error))
                continue
            try:
                job.settle()
            except OverloadedError as no_room:
                self._planner.withdraw(job)
                _fail(job, no_room)

    def _expire(self, job: FrameJob) -> None:
        if self._planner.withdraw(job):
            self._expired(job)
            self._pump()

    def _expired(self, job: FrameJob) -> None:
        self._on_drop(job.work.variant, "budget")
        _fail(job, BudgetSpentError("the frame's time ran out while it waited to be inferred"))

    def _give_up(self, jobs: Iterable[Job]) -> None:
        for job in cast("Iterable[FrameJob]", jobs):
            _fail(job, BackendUnavailableError(f"no Triton serves {job.work.variant} any more in time"))

    def _probe(self, job: FrameJob, now: float) -> None:
        """Have a frame of nobody's inferred when nothing else is, to learn whether its network is still that slow.

        A network that is taken for too slow gets no frames, so nothing would show that it is fast again.
        """
        if self._probing or now < self._probe_at:
            return
        self._probe_at = now + _PROBE_EVERY_S
        self._probing = True
        self._spawn(self._infer_probe(job))

    async def _infer_probe(self, refused: FrameJob) -> None:
        try:
            (slot,) = self._frames.take_apart(refused.layout, 1)
            probe = refused.probe(slot)
            try:
                self.admit(probe)
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await self.infer(probe)
            finally:
                probe.free()
        except (UpscaleError, TimeoutError):
            pass  # then it is not known now, either
        finally:
            self._probing = False

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _own(error: Exception) -> Exception:
    """The same error for one caller of several: it will bear the id of that caller's frame."""
    if not isinstance(error, UpscaleError):  # a bug, of which each caller makes an error of its own
        return error
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _fail(job: FrameJob, error: Exception) -> None:
    if not job.done.done():
        job.done.set_exception(error)
        job.done.exception()  # looked at, even if the caller has gone
