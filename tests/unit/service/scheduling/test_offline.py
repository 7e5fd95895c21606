"""Frames that nobody waits for, by hand: in which batches, on which executors, and when they hold back."""

from __future__ import annotations

import pytest

from service.scheduling.executors import Executor, Executors
from service.scheduling.jobs import Job
from service.scheduling.offline import LIVE_MEMORY_S, OfflineQueue
from service.scheduling.sizes import BatchSizes
from tests.unit.service.scheduling.conftest import NEVER, Cost, Film, Known, ticks


class Queue:
    """A queue, and an idle executor of every endpoint; a batch of n takes 10 n ticks."""

    def __init__(self, **endpoints: dict[str, Cost]) -> None:
        executors = Executors()
        clock = Known({(name, variant): cost for name, costs in endpoints.items() for variant, cost in costs.items()})
        self.queue = OfflineQueue(BatchSizes(clock, executors))
        self.executors: dict[str, Executor] = {}
        for name, costs in endpoints.items():
            executors.add(name, 1, {variant: cost.most for variant, cost in costs.items()}, 0.0)
            self.executors[name] = executors.endpoints[name].executors[0]

    def add(self, *films: Film, most: int = 4) -> None:
        for film in films:
            self.queue.add(film, most)

    def next(self, name: str = "a", now: float = 0.0) -> list[Job]:
        batch, dropped = self.queue.next(self.executors[name], now)
        assert not dropped
        return batch.jobs if batch else []


NET = {"net": Cost(0, 10, most=4)}


def films(count: int, first_slot: int = 0, *, variant: str = "net", deadline: float = NEVER) -> list[Film]:
    return [Film(variant, first_slot + number, deadline) for number in range(count)]


def test_frames_that_lie_side_by_side_share_batches_in_the_order_they_came() -> None:
    queue, frames = Queue(a=NET), films(6)
    queue.add(*frames)
    assert list(queue.queue) == frames
    assert len(queue.queue) == 2
    assert [queue.next(), queue.next(), queue.next()] == [frames[:4], frames[4:], []]
    assert not queue.queue


def test_a_gap_between_them_or_another_network_begins_another_batch() -> None:
    queue = Queue(a={**NET, "other": Cost(0, 10, most=4)})
    frames = [*films(2), *films(1, first_slot=3), *films(1, first_slot=4, variant="other")]
    queue.add(*frames)
    assert [queue.next(), queue.next(), queue.next()] == [frames[:2], frames[2:3], frames[3:]]


def test_frames_that_failed_elsewhere_do_not_join_those_that_did_not() -> None:
    queue, frames = Queue(a=NET, b=NET), films(3)
    frames[1].excluded = frozenset({"a"})
    frames[2].excluded = frozenset({"a"})
    queue.add(*frames)
    assert queue.next("a") == frames[:1]
    assert queue.next("a") == []
    assert queue.next("b") == frames[1:]


def test_an_executor_takes_as_many_as_it_may_and_leaves_the_rest_in_place() -> None:
    queue, frames = Queue(a=NET, b={"net": Cost(0, 10, most=3)}, c={"other": Cost(0, 10)}), films(5)
    queue.add(*frames)
    assert queue.next("c") == []
    assert queue.next("b") == frames[:3]
    assert queue.next("b") == frames[3:4]
    assert queue.next("a") == frames[4:]


def test_a_frame_that_is_given_up_parts_its_neighbours() -> None:
    queue, frames = Queue(a=NET), films(4)
    queue.add(*frames)
    queue.queue.remove(frames[1])
    assert frames[1].batch is None
    assert [queue.next(), queue.next()] == [frames[:1], frames[2:]]


def test_frames_that_would_be_late_are_dropped_and_never_begun() -> None:
    queue = Queue(a=NET)
    early, late = films(2), films(1, first_slot=2, deadline=ticks(15))
    after = films(1, first_slot=3)
    queue.add(*early, *late, *after)
    batch, dropped = queue.queue.next(queue.executors["a"], ticks(6))
    assert dropped == late
    assert batch is not None
    assert batch.jobs == early
    assert queue.next(now=ticks(6)) == after


@pytest.mark.parametrize(("can_wait", "begun"), [(9, 0), (10, 1), (39, 3), (40, 4), (1000, 4)])
def test_no_more_is_begun_than_a_live_frame_could_wait_for(can_wait: int, begun: int) -> None:
    queue, frames = Queue(a=NET), films(4)
    queue.add(*frames)
    queue.queue.live_came(ticks(can_wait), 0.0)
    assert queue.next() == frames[:begun]


def test_what_is_too_long_now_lets_shorter_batches_pass() -> None:
    queue = Queue(a={"net": Cost(0, 10), "slow": Cost(50, 10)})
    slow, quick = films(1, variant="slow"), films(1, first_slot=1)
    queue.add(*slow, *quick)
    queue.queue.live_came(ticks(20), 0.0)
    assert [queue.next(), queue.next()] == [quick, []]
    assert queue.next(now=LIVE_MEMORY_S) == slow


def test_the_live_frame_that_can_wait_least_is_heeded_until_it_came_too_long_ago() -> None:
    queue, frames = Queue(a=NET), films(4)
    queue.add(*frames)
    assert queue.queue.less_hindered_at is None
    queue.queue.live_came(ticks(5), 1.0)
    # Others that can wait longer go on coming.
    for tenth in range(11, 40):
        queue.queue.live_came(ticks(20), tenth / 10)
        if tenth < 30:
            assert queue.next(now=tenth / 10) == []
            assert queue.queue.less_hindered_at == 1.0 + LIVE_MEMORY_S
    assert queue.next(now=3.9) == frames[:2]
    assert queue.queue.less_hindered_at == 3.9 + LIVE_MEMORY_S
    queue.queue.live_came(ticks(5), 3.95)
    assert queue.next(now=3.95) == []


def test_it_says_whether_there_was_anybody_to_forget() -> None:
    queue = Queue(a=NET)
    queue.queue.live_came(ticks(5), 1.0)
    assert not queue.queue.forget(1.0 + LIVE_MEMORY_S - 0.001)
    assert queue.queue.forget(1.0 + LIVE_MEMORY_S)
    assert not queue.queue.forget(1.0 + LIVE_MEMORY_S)
