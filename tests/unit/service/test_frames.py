"""Slots and lanes: room, neighbours, limits, and nothing left behind."""

from __future__ import annotations

import contextlib
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
from service.frames import SHARED_MEMORY, FrameSize, FrameStore

SMALL = FrameSize(height=16, width=16, scale=2)
OTHER = FrameSize(height=20, width=16, scale=3)


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
    assert first.lane is second.lane
    assert (first.index, second.index) == (0, 1)
    first.input[:] = b"\x01" * SMALL.input_bytes
    second.input[:] = b"\x02" * SMALL.input_bytes
    second.output[:] = b"\x03" * SMALL.output_bytes
    both = first.lane.inputs(0, 2)
    assert bytes(both) == b"\x01" * SMALL.input_bytes + b"\x02" * SMALL.input_bytes
    assert set(first.output) == {0}
    on_disk = (SHARED_MEMORY / first.lane.name).read_bytes()
    start = first.lane.output_offset(1)
    assert on_disk[start : start + SMALL.output_bytes] == b"\x03" * SMALL.output_bytes


def test_one_frame_too_many_is_refused_and_fits_again_later(store: FrameStore) -> None:
    slots = [store.take(SMALL) for _ in range(4)]
    with pytest.raises(OverloadedError, match="4 frames are in flight already"):
        store.take(SMALL)
    slots[2].release()
    assert store.take(SMALL).index == 2


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
    old = store.take(SMALL)
    old.release()
    new = store.take(OTHER)
    assert store.removed == [old.lane.name]
    assert not (SHARED_MEMORY / old.lane.name).exists()
    assert store.byte_size == new.lane.byte_size <= 10 * SMALL.slot_bytes


def test_a_size_without_room_beside_those_in_flight_is_refused(store: FrameStore) -> None:
    store.take(SMALL)
    with pytest.raises(OverloadedError, match="no shared memory for a frame of 64x64"):
        store.take(FrameSize(height=64, width=64, scale=2))


def test_a_retired_lane_is_never_used_again(store: FrameStore) -> None:
    slot = store.take(SMALL)
    store.retire(slot.lane)
    assert store.retired == 1
    fresh = store.take(SMALL)
    assert fresh.lane is not slot.lane
    slot.release()
    fresh.release()
    store.take(SMALL)
    assert store.retired == 0
    assert slot.lane.name not in store.removed, "Triton may still write to it: it must not be told to unmap it"


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
            store.retire(rng.choice(held).lane)
        assert store.in_use == len(held) <= 4
        assert len({(slot.lane.name, slot.index) for slot in held}) == len(held)
    for slot in held:
        slot.release()
    assert store.in_use == 0


def test_regions_of_a_killed_gateway_are_removed_and_those_of_a_living_one_are_not(store: FrameStore) -> None:
    living = store.take(SMALL).lane.name
    program = textwrap.dedent("""
        import time
        from service.frames import FrameSize, FrameStore
        slot = FrameStore(4, 1 << 20).take(FrameSize(16, 16, 2))
        print(slot.lane.name, flush=True)
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
