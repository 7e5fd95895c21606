"""Slots and lanes: room, neighbours, limits, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import OverloadedError
from service.frames import SHARED_MEMORY, FrameFormat, FrameStore, Slot

SMALL = FrameFormat(height=16, width=16, scale=2)
OTHER = FrameFormat(height=20, width=16, scale=3)


def index(slot: Slot) -> int:
    return slot.source.offset // slot.layout.input_bytes


def regions() -> set[Path]:
    return set(SHARED_MEMORY.glob("upscale-frames-*"))


@pytest.fixture
def store() -> Iterator[FrameStore]:
    before = regions()
    store = FrameStore(max_frames=4, max_bytes=10 * SMALL.slot_bytes)
    yield store
    store.close()
    assert regions() <= before


def test_slots_of_one_size_are_neighbours_in_one_region(store: FrameStore) -> None:
    first, second = store.take(SMALL), store.take(SMALL)
    assert first.source.region is second.source.region is first.answer.region
    assert (index(first), index(second)) == (0, 1)
    assert first.precedes(second)
    assert not second.precedes(first)
    first.source.view[:] = b"\x01" * SMALL.input_bytes
    second.source.view[:] = b"\x02" * SMALL.input_bytes
    second.answer.view[:] = b"\x03" * SMALL.output_bytes
    both = first.source.region.view(first.source.offset, 2 * SMALL.input_bytes)
    assert bytes(both) == b"\x01" * SMALL.input_bytes + b"\x02" * SMALL.input_bytes
    assert set(first.answer.view) == {0}
    on_disk = (SHARED_MEMORY / first.source.region.file).read_bytes()
    start = second.answer.offset
    assert on_disk[start : start + SMALL.output_bytes] == b"\x03" * SMALL.output_bytes


def test_one_frame_too_many_is_refused_and_fits_again_later(store: FrameStore) -> None:
    slots = [store.take(SMALL) for _ in range(4)]
    with pytest.raises(OverloadedError, match="4 frames are in flight already"):
        store.take(SMALL)
    slots[2].release()
    assert index(store.take(SMALL)) == 2


def test_a_slot_is_free_when_its_last_holder_lets_go(store: FrameStore) -> None:
    slot = store.take(SMALL)
    slot.hold()
    slot.release()
    assert store.in_use == 1
    slot.release()
    assert store.in_use == 0
    with pytest.raises(AssertionError):
        slot.release()


def test_idle_lanes_make_room_for_other_sizes(store: FrameStore) -> None:
    removed = store.subscribe()
    old = store.take(SMALL)
    old.release()
    new = store.take(OTHER)
    assert list(removed) == [old.source.region.name]
    assert not (SHARED_MEMORY / old.source.region.name).exists()
    assert store.byte_size == new.source.region.byte_size <= 10 * SMALL.slot_bytes


def test_frames_of_ever_other_sizes_do_not_use_up_the_open_files() -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before, store = opened(), FrameStore(max_frames=2, max_bytes=1 << 30)
    held = store.take(SMALL)
    for width in range(16, 316):
        store.take(FrameFormat(height=16, width=width, scale=2)).release()
    assert opened() - before <= 2 * 65, "a file and its mapping for each of 64, and for the one that is in use"
    assert held.source.view[0] == 0
    held.release()
    store.close()
    assert opened() == before


def test_a_size_without_room_beside_those_in_flight_is_refused(store: FrameStore) -> None:
    store.take(SMALL)
    with pytest.raises(OverloadedError, match="no shared memory for a frame of 64x64"):
        store.take(FrameFormat(height=64, width=64, scale=2))


def test_a_retired_lane_is_never_used_again(store: FrameStore) -> None:
    slot = store.take(SMALL)
    slot.retire()
    assert store.retired == 1
    fresh = store.take(SMALL)
    assert fresh.source.region is not slot.source.region
    slot.release()
    fresh.release()
    store.take(SMALL)
    assert store.retired == 0


def test_every_subscriber_learns_once_of_what_is_gone_while_it_is_one(store: FrameStore) -> None:
    def remove_a_region() -> str:
        with store.take_apart(SMALL, 1)[0] as slot:
            return slot.source.region.name

    first, second = store.subscribe(), store.subscribe()
    names = [remove_a_region()]
    assert list(first) == list(second) == names
    first.clear()
    late = store.subscribe()
    names.append(remove_a_region())
    assert (list(first), list(second), list(late)) == (names[1:], names, names[1:])
    store.unsubscribe(late)  # not `first`, which is equal and another
    remove_a_region()
    assert (len(first), len(second), len(late)) == (2, 3, 1)


def test_slots_apart_are_neighbours_and_leave_nothing_behind(store: FrameStore) -> None:
    removed = store.subscribe()
    frame = store.take(SMALL)
    slots = store.take_apart(SMALL, 3)
    assert all(left.precedes(right) for left, right in itertools.pairwise(slots))
    assert slots[0].source.region is not frame.source.region
    assert not any(slots[0].source.region.view(0, slots[0].source.region.byte_size))
    assert (store.in_use, store.byte_size) == (4, 7 * SMALL.slot_bytes)
    for slot in slots:
        assert not removed
        slot.release()
    assert (store.in_use, store.byte_size) == (1, 4 * SMALL.slot_bytes)
    assert list(removed) == [slots[0].source.region.name]
    assert not (SHARED_MEMORY / slots[0].source.region.file).exists()


def test_slots_apart_take_no_frames_place_and_no_lanes_memory(store: FrameStore) -> None:
    store.take(SMALL).release()
    with pytest.raises(OverloadedError, match="no room for 5 more frames of 16x16"):
        store.take_apart(SMALL, 5)
    with pytest.raises(OverloadedError, match="no room for 2 more frames of 32x32"):
        store.take_apart(FrameFormat(height=32, width=32, scale=2), 2)
    assert store.byte_size == 4 * SMALL.slot_bytes, "an idle lane stays what it is"
    held = [store.take(SMALL) for _ in range(4)]
    with pytest.raises(OverloadedError):
        store.take_apart(SMALL, 1)
    held[0].release()
    assert len(store.take_apart(SMALL, 1)) == 1


def test_a_frame_that_waits_gets_the_place_that_slots_apart_give_back(store: FrameStore) -> None:
    async def scene() -> None:
        slots = store.take_apart(SMALL, 4)
        waiting = asyncio.create_task(store.reserve())
        await asyncio.sleep(0)
        for slot in slots:
            slot.release()
        await asyncio.wait_for(waiting, 1)
        store.unreserve()

    asyncio.run(scene())


def test_no_slot_is_lost_however_they_come_and_go(store: FrameStore) -> None:
    rng = random.Random(0)
    held = []
    for _ in range(3000):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).release()
        else:
            with contextlib.suppress(OverloadedError):
                held.append(store.take(rng.choice([SMALL, OTHER])))
        if held and rng.random() < 0.02:
            rng.choice(held).retire()
        assert store.in_use == len(held) <= 4
        assert len({(slot.source.region.name, slot.source.offset) for slot in held}) == len(held)
    for slot in held:
        slot.release()
    assert store.in_use == 0


def test_regions_of_a_killed_gateway_are_removed_and_those_of_a_living_one_are_not(store: FrameStore) -> None:
    living = store.take(SMALL).source.region.file
    program = textwrap.dedent("""
        import time
        from service.frames import FrameFormat, FrameStore
        slot = FrameStore(4, 1 << 20).take(FrameFormat(16, 16, 2))
        print(slot.source.region.file, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert (SHARED_MEMORY / name).exists()
        FrameStore(1, 1 << 20).close()
        assert (SHARED_MEMORY / name).exists()
        os.kill(process.pid, signal.SIGKILL)
    FrameStore(1, 1 << 20).close()
    assert not (SHARED_MEMORY / name).exists()
    assert (SHARED_MEMORY / living).exists()


def test_a_frame_that_waits_for_room_gets_it_in_turn(store: FrameStore) -> None:
    async def scene() -> list[str]:
        slots = [store.take(SMALL) for _ in range(4)]
        came: list[str] = []

        async def wait(name: str) -> None:
            await store.reserve()
            came.append(name)
            await asyncio.sleep(0.02)  # nobody takes a place that is reserved
            slots.append(store.take(SMALL, reserved=True))
            store.unreserve()

        tasks = [asyncio.create_task(wait(name)) for name in ("first", "leaves", "second")]
        await asyncio.sleep(0)
        assert came == []
        tasks[1].cancel()  # its place in the queue is still taken when a slot becomes free
        slots[0].release()
        await asyncio.sleep(0.01)
        assert came == ["first"]
        with pytest.raises(OverloadedError):
            store.take(SMALL)
        slots[1].release()
        await asyncio.wait_for(tasks[2], 1)
        return came

    assert asyncio.run(scene()) == ["first", "second"]


def test_borrowed_memory_counts_as_a_frame(store: FrameStore) -> None:
    own = store.take(SMALL)
    freed: list[bool] = []
    slot = store.borrow(SMALL, own.source, own.answer, lambda: freed.append(True))
    assert store.in_use == 2
    slot.release()
    assert (store.in_use, freed) == (1, [True])


def test_nv12_takes_half_the_bytes() -> None:
    rgb, nv12 = FrameFormat(1080, 1920, 2), FrameFormat(1080, 1920, 2, "nv12")
    assert nv12.slot_bytes * 2 == rgb.slot_bytes
    assert (nv12.input_shape, nv12.output_shape) == ((1620, 1920), (3240, 3840))
