"""The scheduler, with a backend that does as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from service.catalog import Variant
from service.errors import BackendUnavailableError, BudgetSpentError, ShuttingDownError
from service.frames import FrameFormat, FrameStore, Slot
from service.scheduler import Batch, Scheduler

SIZE = FrameFormat(height=16, width=16, scale=2)


def variant(max_batch_frames: int = 4, instances: int = 1) -> Variant:
    return Variant("runet_x2_clean", "runet", 2, "clean", max_batch_frames, True, instances)


class HeldBackend:
    """Keeps every batch until the test lets it go, or fails it."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self._gates: list[asyncio.Future[None]] = []

    async def infer(self, variant: Variant, batch: Batch) -> None:
        gate = asyncio.get_running_loop().create_future()
        self.batches.append(batch)
        self._gates.append(gate)
        await gate

    def finish(self, number: int = -1, error: Exception | None = None) -> None:
        gate = self._gates[number]
        if error:
            gate.set_exception(error)
        else:
            gate.set_result(None)


@pytest.fixture
def frames() -> Iterator[FrameStore]:
    store = FrameStore(max_frames=16, max_bytes=1 << 20)
    yield store
    store.close()


def place(batch: Batch) -> tuple[int, int]:
    """The first of its slots, counted around the lane, and how many there are."""
    return batch.source.offset // SIZE.input_bytes, len(batch.slots)


def submit(scheduler: Scheduler, slot: Slot, of: Variant, deadline: float | None = None) -> asyncio.Task[int]:
    return asyncio.create_task(scheduler.infer(of, slot, deadline))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_free_instance_never_waits_for_company(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    task = submit(scheduler, frames.take(SIZE), variant())
    await settle()
    assert [len(batch.slots) for batch in backend.batches] == [1]
    backend.finish()
    assert await task == 1


async def test_those_who_waited_ride_together_up_to_the_maximum(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    tasks = [submit(scheduler, frames.take(SIZE), variant(max_batch_frames=4)) for _ in range(8)]
    for _ in range(3):
        await settle()
        backend.finish()
    assert await asyncio.gather(*tasks) == [1, 4, 4, 4, 4, 3, 3, 3]
    assert [place(batch) for batch in backend.batches] == [(0, 1), (1, 4), (5, 3)]


async def test_instances_work_side_by_side(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    tasks = [submit(scheduler, frames.take(SIZE), variant(max_batch_frames=1, instances=2)) for _ in range(3)]
    await settle()
    assert len(backend.batches) == 2
    assert scheduler.queued("runet_x2_clean") == 1
    backend.finish(0)
    await settle()
    assert len(backend.batches) == 3
    backend.finish(1)
    backend.finish(2)
    await asyncio.gather(*tasks)


async def test_frames_of_other_sizes_do_not_ride_together(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    other = FrameFormat(height=16, width=20, scale=2)
    tasks = [submit(scheduler, frames.take(size), variant()) for size in (SIZE, SIZE, other, SIZE, other)]
    for _ in range(3):
        await settle()
        backend.finish()
    assert await asyncio.gather(*tasks) == [1, 2, 2, 2, 2]
    assert [batch.layout for batch in backend.batches] == [SIZE, SIZE, other]


async def test_a_batch_is_of_neighbours_only(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    slots = [frames.take(SIZE) for _ in range(5)]
    tasks = [submit(scheduler, slots[index], variant()) for index in (0, 4, 1, 2)]
    for _ in range(3):
        await settle()
        backend.finish()
    await asyncio.gather(*tasks)
    assert [place(batch) for batch in backend.batches] == [(0, 1), (4, 1), (1, 2)]


async def test_a_failed_batch_fails_its_members_only(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    tasks = [submit(scheduler, frames.take(SIZE), variant(max_batch_frames=2)) for _ in range(4)]
    await settle()
    backend.finish()
    await settle()
    backend.finish(error=BackendUnavailableError("gone"))
    await settle()
    backend.finish()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [int, BackendUnavailableError, BackendUnavailableError, int]


async def test_a_frame_whose_time_runs_out_is_not_inferred(frames: FrameStore) -> None:
    backend = HeldBackend()
    dropped: list[tuple[str, str]] = []
    scheduler = Scheduler(backend, on_drop=lambda *what: dropped.append(what))
    first = submit(scheduler, frames.take(SIZE), variant())
    late = submit(scheduler, frames.take(SIZE), variant(), deadline=time.monotonic() + 0.02)
    with pytest.raises(BudgetSpentError):
        await late
    assert scheduler.queued("runet_x2_clean") == 0
    backend.finish()
    await first
    assert len(backend.batches) == 1
    assert dropped == [("runet_x2_clean", "budget")]


async def test_a_frame_that_has_begun_is_finished_though_late(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    task = submit(scheduler, frames.take(SIZE), variant(), deadline=time.monotonic() + 0.02)
    await asyncio.sleep(0.05)
    backend.finish()
    assert await task == 1


async def test_a_caller_who_leaves_the_queue_is_dropped(frames: FrameStore) -> None:
    backend = HeldBackend()
    dropped: list[tuple[str, str]] = []
    scheduler = Scheduler(backend, on_drop=lambda *what: dropped.append(what))
    first, second, third = (submit(scheduler, frames.take(SIZE), variant()) for _ in range(3))
    await settle()
    second.cancel()
    await settle()
    backend.finish()
    await settle()
    backend.finish()
    assert await asyncio.gather(first, third) == [1, 1]
    assert dropped == [("runet_x2_clean", "cancelled")]


async def test_a_caller_who_leaves_just_as_a_batch_is_formed_blocks_nobody(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    first, second, third = (submit(scheduler, frames.take(SIZE), variant()) for _ in range(3))
    await settle()
    backend.finish()
    second.cancel()  # its place in the queue is still taken when the next batch is formed
    await settle()
    assert [place(batch) for batch in backend.batches] == [(0, 1), (2, 1)]
    backend.finish()
    assert await asyncio.gather(first, third) == [1, 1]


async def test_a_slot_in_a_running_batch_outlives_its_caller(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    slot = frames.take(SIZE)
    task = submit(scheduler, slot, variant())
    await settle()
    task.cancel()
    await settle()
    slot.release()
    assert frames.in_use == 1
    backend.finish()
    await settle()
    assert frames.in_use == 0


async def test_closing_refuses_the_waiting_and_waits_for_the_running(frames: FrameStore) -> None:
    backend = HeldBackend()
    scheduler = Scheduler(backend)
    running, waiting = (submit(scheduler, frames.take(SIZE), variant()) for _ in range(2))
    await settle()
    closing = asyncio.create_task(scheduler.close())
    with pytest.raises(ShuttingDownError):
        await waiting
    assert not closing.done()
    backend.finish()
    assert await running == 1
    await closing
    with pytest.raises(ShuttingDownError):
        await submit(scheduler, frames.take(SIZE), variant())
