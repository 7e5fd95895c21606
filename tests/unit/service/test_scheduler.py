"""The scheduler, with backends that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.catalog import Variant
from service.errors import (
    BackendUnavailableError,
    BudgetSpentError,
    BudgetTooSmallError,
    InternalError,
    OverloadedError,
    RegionInvalidError,
    ShuttingDownError,
)
from service.frame_job import FrameJob
from service.frames import FrameFormat, FrameStore, SlotBatch
from service.scheduler import Scheduler
from service.scheduling.jobs import Priority

SIZE = FrameFormat(height=16, width=16, scale=2)


def variant(model: str = "runet", most: int = 4) -> Variant:
    return Variant(f"{model}_x2_clean", model, 2, "clean", most, trained=True, instances=1)


class HeldBackend:
    """Keeps every batch until the test lets it go, or fails it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.batches: list[SlotBatch] = []
        self.variants: list[str] = []
        self._gates: list[asyncio.Future[None]] = []

    async def infer(self, variant: Variant, batch: SlotBatch) -> None:
        gate = asyncio.get_running_loop().create_future()
        self.batches.append(batch)
        self.variants.append(variant.name)
        self._gates.append(gate)
        await gate
        for slot in batch.slots:
            slot.answer.view[:] = bytes(slot.source.view) * (slot.answer.size // slot.source.size)

    def finish_all(self) -> None:
        for gate in self._gates:
            if not gate.done():
                gate.set_result(None)

    def finish(self, number: int = -1, error: Exception | None = None) -> None:
        gate = self._gates[number]
        if error:
            gate.set_exception(error)
        else:
            gate.set_result(None)

    @property
    def sizes(self) -> list[int]:
        return [len(batch.slots) for batch in self.batches]


class Scene:
    """A scheduler, its store and what it told."""

    def __init__(self) -> None:
        self.frames = FrameStore(max_frames=16, max_bytes=1 << 20)
        self.drops: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str]] = []
        self.scheduler = Scheduler(
            self.frames,
            on_drop=lambda *what: self.drops.append(what),
            on_failure=lambda *what: self.failures.append(what),
        )
        self.jobs: list[FrameJob] = []
        self.backends: list[HeldBackend] = []

    def join(self, url: str = "a", *variants: Variant) -> HeldBackend:
        backend = HeldBackend(url)
        self.backends.append(backend)
        self.scheduler.join(backend, variants or [variant()])
        return backend

    def submit(self, *variants: Variant, within: float | None = None, **more: Any) -> asyncio.Task[int]:
        job = FrameJob(
            variants or [variant()], SIZE, None if within is None else time.monotonic() + within, self.frames, **more
        )
        self.jobs.append(job)
        self.scheduler.admit(job)
        job.settle()
        assert job.slot is not None
        job.slot.source.view[:] = bytes([len(self.jobs)]) * SIZE.input_bytes
        return asyncio.create_task(self._infer(job))

    async def _infer(self, job: FrameJob) -> int:
        try:
            frames = await self.scheduler.infer(job)
            assert job.slot is not None
            assert set(job.slot.answer.view) == set(job.slot.source.view), "its answer is another frame's"
            return frames
        finally:
            job.free()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    closing = asyncio.create_task(scene.scheduler.close())
    await settle()
    for backend in scene.backends:
        backend.finish_all()
    await closing
    await settle()
    assert scene.frames.in_use == 0, "a slot was lost"
    scene.frames.close()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_idle_instance_never_waits_for_company(scene: Scene) -> None:
    backend = scene.join()
    task = scene.submit()
    await settle()
    assert backend.sizes == [1]
    backend.finish()
    assert await task == 1


async def test_those_who_wait_ride_together_in_neighbouring_slots(scene: Scene) -> None:
    backend = scene.join()
    tasks = [scene.submit()]
    await settle()
    tasks += [scene.submit() for _ in range(7)]
    for _ in range(3):
        await settle()
        backend.finish()
    await asyncio.gather(*tasks)
    assert backend.sizes == [1, 4, 3]
    for batch in backend.batches:
        assert all(before.precedes(after) for before, after in zip(batch.slots, batch.slots[1:], strict=False))


async def test_frames_of_another_size_ride_apart(scene: Scene) -> None:
    backend = scene.join()
    first = scene.submit()
    await settle()
    jobs = [FrameJob([variant()], FrameFormat(16, side, 2), None, scene.frames) for side in (16, 32, 16)]
    tasks = [first]
    for job in jobs:
        scene.scheduler.admit(job)
        job.settle()
        tasks.append(asyncio.create_task(scene._infer(job)))  # pyright: ignore[reportPrivateUsage]
        job.slot.source.view[:] = bytes(job.layout.input_bytes)  # pyright: ignore[reportOptionalMemberAccess]
    for _ in range(3):
        await settle()
        backend.finish()
    assert sorted(await asyncio.gather(*tasks)) == [1, 1, 2, 2]


async def test_what_is_too_slow_even_when_idle_is_told_apart_from_what_is_too_slow_now(scene: Scene) -> None:
    backend = scene.join()
    scene.scheduler.measured("a", variant(), SIZE, 1, 1.0)
    with pytest.raises(BudgetTooSmallError, match=r"runet_x2_clean takes 1[0-9.]+ ms for a frame of 16x16"):
        scene.submit(within=0.5)
    task = scene.submit(within=5)
    await settle()
    other = FrameFormat(32, 16, 2)
    scene.scheduler.measured("a", variant(), other, 1, 1.0)
    with pytest.raises(OverloadedError, match="try again later") as caught:
        scene.scheduler.admit(FrameJob([variant()], other, time.monotonic() + 1.5, scene.frames))
    assert caught.value.retry_after_s is not None
    assert 0.3 < caught.value.retry_after_s < 1.5
    backend.finish()
    await task


async def test_a_network_that_was_slow_once_is_tried_again_with_nobodys_frame(scene: Scene) -> None:
    backend = scene.join()
    for _ in range(3):
        scene.scheduler.measured("a", variant(), SIZE, 1, 1.0)
    for _ in range(5):
        with pytest.raises(BudgetTooSmallError):
            scene.submit(within=0.5)
    await settle()
    assert backend.sizes == [1], "one try, however many are refused"
    assert scene.frames.in_use == 1
    backend.finish()
    await settle()
    assert scene.frames.in_use == 0


async def test_a_lesser_network_answers_in_time(scene: Scene) -> None:
    best, lesser = variant(), variant("bicubic")
    backend = scene.join("a", best, lesser)
    scene.scheduler.measured("a", best, SIZE, 1, 1.0)
    scene.scheduler.measured("a", lesser, SIZE, 1, 0.01)
    task = scene.submit(best, lesser, within=0.5)
    await settle()
    assert backend.variants == ["bicubic_x2_clean"]
    assert scene.jobs[0].variant is lesser
    backend.finish()
    await task


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait(scene: Scene) -> None:
    backend = scene.join()  # of which nothing is known, so nothing is refused
    busy = scene.submit()
    await settle()
    late = scene.submit(within=0.05)
    began = time.monotonic()
    with pytest.raises(BudgetSpentError, match="while it waited"):
        await late
    assert time.monotonic() - began < 1
    assert scene.drops == [("runet_x2_clean", "budget")]
    backend.finish()
    await busy
    assert backend.sizes == [1]


async def test_a_caller_who_leaves_leaves_the_queue(scene: Scene) -> None:
    backend = scene.join()
    running = scene.submit()
    await settle()
    leaving, staying = scene.submit(), scene.submit()
    await settle()
    for task in (running, leaving):
        task.cancel()
    await asyncio.gather(running, leaving, return_exceptions=True)
    assert scene.drops == [("runet_x2_clean", "cancelled")]
    assert scene.frames.in_use == 2, "Triton still has the slot of the one that ran"
    backend.finish()
    await settle()
    backend.finish()
    assert await staying == 1
    assert backend.sizes == [1, 1]


async def test_offline_frames_wait_for_live_ones(scene: Scene) -> None:
    backend = scene.join()
    first = scene.submit()
    await settle()
    offline, live = scene.submit(priority=Priority.OFFLINE), scene.submit(within=60)
    for _ in range(2):
        await settle()
        backend.finish()
    await asyncio.gather(first, live)
    assert not offline.done()
    await asyncio.sleep(0.05)
    backend.finish()
    await offline


@pytest.mark.parametrize("error", [BackendUnavailableError("gone"), InternalError("broken")])
async def test_a_batch_that_fails_is_inferred_elsewhere(scene: Scene, error: Exception) -> None:
    first = scene.join("a")
    task = scene.submit(within=60)
    await settle()
    second = scene.join("b")
    if isinstance(error, BackendUnavailableError):
        first.batches[0].retire()
    first.finish(error=error)
    await settle()
    assert (len(first.batches), len(second.batches)) == (1, 1)
    if isinstance(error, BackendUnavailableError):
        assert first.batches[0].source.region is not second.batches[0].source.region, "it may still be written to"
    assert scene.failures == [("a", "runet_x2_clean")]
    second.finish()
    assert await task == 1


async def test_a_frame_that_fails_everywhere_says_why(scene: Scene) -> None:
    backends = [scene.join("a"), scene.join("b")]
    task = scene.submit()
    for _ in range(2):
        await settle()
        for backend in backends:
            if len(backend.batches) == 1:
                backend.finish(error=InternalError(f"{backend.url} is broken"))
                backend.batches.append(backend.batches[0])
    with pytest.raises(InternalError, match="is broken"):
        await task
    assert sorted(scene.failures) == [("a", "runet_x2_clean"), ("b", "runet_x2_clean")]


async def test_each_frame_of_a_batch_that_fails_has_an_error_of_its_own(scene: Scene) -> None:
    backend = scene.join()
    first = scene.submit()
    await settle()
    tasks = [scene.submit() for _ in range(3)]
    backend.finish()
    await first
    await settle()
    failure = OverloadedError("too much", 1.5)
    failure.__cause__ = ValueError("the backend's words")
    backend.finish(error=failure)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert backend.sizes == [1, 3]
    assert len({id(error) for error in errors}) == 3
    for error in errors:
        assert isinstance(error, OverloadedError)
        assert (str(error), error.retry_after_s, error.__cause__) == ("too much", 1.5, failure.__cause__)


async def test_what_a_client_did_is_not_tried_elsewhere(scene: Scene) -> None:
    first, second = scene.join("a"), scene.join("b")
    task = scene.submit()
    await settle()
    first.finish(error=RegionInvalidError("cut short"))
    with pytest.raises(RegionInvalidError):
        await task
    assert second.batches == []


async def test_the_frames_of_an_endpoint_that_leaves_wait_for_another(scene: Scene) -> None:
    first = scene.join("a")
    running = scene.submit()
    await settle()
    waiting = scene.submit()
    await settle()
    second = scene.join("b")
    scene.scheduler.leave("a")
    await settle()
    assert second.sizes == [1]
    second.finish()
    first.finish()
    assert await asyncio.gather(running, waiting) == [1, 1]


async def test_the_frames_of_the_last_endpoint_are_told(scene: Scene) -> None:
    first = scene.join("a")
    running = scene.submit()
    await settle()
    waiting = scene.submit()
    await settle()
    scene.scheduler.leave("a")
    with pytest.raises(BackendUnavailableError, match="no Triton serves runet_x2_clean"):
        await waiting
    first.finish()
    assert await running == 1


async def test_closing_ends_the_queue_and_waits_for_what_runs(scene: Scene) -> None:
    backend = scene.join()
    running = scene.submit()
    await settle()
    waiting = scene.submit()
    await settle()
    closing = asyncio.create_task(scene.scheduler.close())
    with pytest.raises(ShuttingDownError):
        await waiting
    with pytest.raises(ShuttingDownError):
        scene.submit()
    assert not closing.done()
    backend.finish()
    assert await running == 1
    await closing


async def test_what_waits_and_what_batches_take_is_told(scene: Scene) -> None:
    backend = scene.join()
    tasks = [scene.submit()]
    await settle()
    assert scene.scheduler.waiting() == {}
    tasks += [scene.submit(), scene.submit()]
    assert scene.scheduler.waiting() == {"runet_x2_clean": 2}
    for _ in range(2):
        backend.finish()
        await settle()
    await asyncio.gather(*tasks)
    assert {(each.endpoint, each.variant, each.layout, each.frames) for each in scene.scheduler.times()} == {
        ("a", "runet_x2_clean", SIZE, 1),
        ("a", "runet_x2_clean", SIZE, 2),
    }
