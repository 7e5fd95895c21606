"""The planner by hand: frames withdrawn, batches that fail, endpoints that come and go, and offline frames between."""

from __future__ import annotations

import pytest

from tests.unit.service.scheduling.conftest import Cost, Frame, Scene

NET = {"net": Cost(0, 10)}
SHARED = {"net": Cost(100, 10)}
ALONE = {"net": Cost(0, 10, most=1)}
SECOND = 1024


# -- withdrawal --------------------------------------------------------------------------------------------------------


def test_a_frame_that_waits_is_withdrawn_and_parts_its_neighbours() -> None:
    scene = Scene(a=SHARED)
    scene.offer()
    scene.start()
    frames = [scene.offer() for _ in range(4)]
    assert scene.planner.withdraw(frames[1])
    assert list(scene.planner.waiting) == [frames[0], *frames[2:]]
    assert not scene.planner.withdraw(frames[1]), "only once"
    assert scene.finish(110) == [[frames[0]]]
    assert scene.finish(220) == [frames[2:]]


def test_a_frame_that_runs_or_is_answered_or_was_refused_is_not_withdrawn() -> None:
    scene = Scene(a=ALONE)
    running, refused = scene.offer(), scene.offer(5)
    scene.start()
    assert not scene.planner.withdraw(running)
    assert not scene.planner.withdraw(refused)
    scene.finish(10)
    assert not scene.planner.withdraw(running)


def test_an_offline_frame_is_withdrawn() -> None:
    scene = Scene(a=NET)
    scene.offer()
    scene.start()
    films = [scene.film() for _ in range(3)]
    assert scene.planner.withdraw(films[1])
    assert list(scene.planner.waiting) == [films[0], films[2]]
    assert scene.finish(2 * SECOND) == [films[:1]]
    assert not scene.planner.withdraw(films[0])


def test_a_piece_that_is_left_is_taken_by_one_that_could_not_take_the_whole() -> None:
    scene = Scene(a=SHARED)
    scene.offer()
    scene.start()
    frames = [scene.offer() for _ in range(3)]
    scene.join("b", {"net": Cost(100, 10, most=2)})
    assert scene.start() == []
    scene.planner.withdraw(frames[1])
    assert scene.start() == [[frames[0]]]
    assert scene.begun[-1].endpoint == "b"


# -- failure -----------------------------------------------------------------------------------------------------------


def test_the_frames_of_a_batch_that_failed_are_planned_elsewhere_if_there_is_time() -> None:
    scene = Scene(a=NET)
    frames = [scene.offer(), scene.offer(100), scene.offer(200)]
    assert scene.start() == [frames]
    scene.join("b", NET)
    assert scene.fail(20) == []
    assert scene.start(20) == [frames]
    assert scene.begun[0].endpoint == "b"


def test_those_for_which_there_is_no_time_are_returned() -> None:
    scene = Scene(a=NET, b={"net": Cost(0, 60)})
    first, second = scene.offer(100), scene.offer(100)
    scene.start()
    assert scene.fail(20) == [first]
    assert first.batch is None
    assert scene.fail(60) == []
    assert scene.start(60) == [[second]]
    assert scene.begun[0].endpoint == "a"


def test_all_are_returned_if_they_are_not_to_be_tried_elsewhere() -> None:
    scene = Scene(a=NET)
    frame = scene.offer()
    scene.start()
    scene.join("b", NET)
    assert scene.fail(1, elsewhere=lambda job: False) == [frame]
    assert list(scene.planner.waiting) == []
    assert scene.start(1) == []


def test_a_frame_never_comes_back_to_an_endpoint_that_failed_on_it() -> None:
    scene = Scene(a=NET, b=NET, c=NET)
    frame = scene.offer()
    tried: list[str] = []
    for at in range(3):
        assert scene.start(at) == [[frame]]
        tried.append(scene.begun[0].endpoint)
        assert scene.fail(at) == ([frame] if at == 2 else [])
    assert tried == ["a", "b", "c"]
    assert scene.start(3) == []


def test_others_are_not_kept_from_an_endpoint_by_a_neighbour_that_failed_there() -> None:
    scene = Scene(a=ALONE, b=ALONE)
    first, second = scene.offer(), scene.offer()
    scene.start()
    third = scene.offer()
    assert scene.fail(5) == []
    assert scene.start(5) == [[third]]
    assert scene.begun[-1].endpoint == "a"
    assert scene.finish(10) == [[first]]
    assert second.batch is None


def test_a_frame_that_is_planned_anew_steps_down_but_not_up() -> None:
    costs = {"best": Cost(0, 20, most=1), "good": Cost(0, 10, most=1), "fast": Cost(0, 5, most=1)}
    scene = Scene(a={"good": costs["good"]}, b={})
    frame = scene.offer(40, ladder="best good fast")
    assert frame.work.variant == "good"
    scene.start()
    scene.join("b", costs)
    assert scene.fail(10) == []
    assert frame.work.variant == "good"
    scene.start(10)
    scene.join("c", costs)
    assert scene.fail(34) == []
    assert frame.work.variant == "fast"


# -- endpoints that come and go ----------------------------------------------------------------------------------------


def test_what_waited_for_an_endpoint_that_left_goes_elsewhere_or_is_returned() -> None:
    scene = Scene(a=ALONE, b={"net": Cost(0, 100, most=1)})
    running = [scene.offer(), scene.offer()]
    assert scene.start() == [[running[0]], [running[1]]]
    patient, urgent = scene.offer(500), scene.offer(60)
    assert scene.planner.leave("a", 0.0) == [urgent]
    assert scene.planner.endpoints == ["b"]
    assert list(scene.planner.waiting) == [patient]
    assert scene.finish(100, 1) == [[patient]]


@pytest.mark.parametrize("fails", [False, True])
def test_a_batch_that_runs_on_an_endpoint_that_left_is_still_to_be_reported(fails: bool) -> None:
    scene = Scene(a=ALONE)
    frame = scene.offer()
    scene.start()
    assert scene.planner.leave("a", 0.0) == []
    assert scene.offer() not in scene.planner.waiting
    if fails:
        assert scene.fail(5) == [frame]
        assert scene.start(5) == []
    else:
        assert scene.finish(5) == []
    assert scene.offer(at=5).batch is None, "nobody is there"
    assert frame.batch is None
    assert not scene.planner.withdraw(frame)


def test_an_endpoint_that_comes_back_begins_at_once_and_its_old_batches_count_no_more() -> None:
    scene = Scene(a=ALONE)
    scene.offer()
    scene.start()
    scene.planner.leave("a", 0.0)
    scene.join("a", ALONE, at=1)
    frame = scene.offer(20, at=1)
    assert scene.start(1) == [[frame]]
    waits = scene.offer(20, at=2)
    assert scene.finish(3) == [], "the old one's end frees nothing"
    assert scene.finish(11) == [[waits]]


def test_an_endpoint_that_is_as_before_is_left_alone() -> None:
    scene = Scene(a=ALONE)
    scene.offer()
    scene.start()
    waits = scene.offer()
    assert scene.join("a", ALONE) == []
    assert scene.start() == [], "it still runs the first"
    assert scene.finish(10) == [[waits]]


def test_frames_that_wait_for_what_an_endpoint_no_longer_has_are_returned() -> None:
    scene = Scene(a={**ALONE, "other": Cost(0, 10, most=1)})
    scene.offer()
    scene.start()
    live, film, other = scene.offer(100), scene.film(), scene.offer(100, ladder="other")
    assert scene.join("a", {"other": Cost(0, 10, most=1)}) == [live, film]
    assert scene.start() == [], "it goes on with what it runs"
    assert scene.finish(10) == [[other]]


def test_frames_that_wait_are_put_into_batches_that_a_changed_endpoint_takes() -> None:
    scene = Scene(a=NET)
    scene.offer()
    scene.start()
    frames = [scene.offer() for _ in range(4)]
    assert scene.join("a", {"net": Cost(0, 10, most=1)}, executors=2) == []
    assert scene.start() == [[frames[0]], [frames[1]]]
    assert list(scene.planner.waiting) == frames[2:]


def test_an_endpoint_that_joins_takes_what_waits() -> None:
    scene = Scene(a=ALONE)
    frames = [scene.offer() for _ in range(4)]
    scene.start()
    scene.join("b", ALONE, executors=2)
    assert scene.start() == [[frames[1]], [frames[2]]]


# -- offline frames ----------------------------------------------------------------------------------------------------


def test_offline_frames_begin_where_nothing_live_waits() -> None:
    scene = Scene(a=NET)
    first = scene.offer(SECOND)
    scene.start()
    films = [scene.film() for _ in range(2)]
    live = scene.offer(SECOND, at=5)
    assert scene.finish(10) == [[live]]
    assert scene.finish(20) == [films]
    assert first.batch is None


def test_offline_frames_hold_back_for_live_ones_that_could_not_wait_and_it_says_until_when() -> None:
    scene = Scene(a=NET)
    scene.offer(15)
    scene.start()
    assert scene.planner.wake_at() is None
    film = scene.film(at=1)
    assert scene.planner.wake_at() is None, "nobody is idle"
    assert scene.finish(10) == []
    assert scene.planner.wake_at() == 2.0
    assert scene.offer(15, at=SECOND) in scene.planner.waiting
    scene.start(SECOND)
    scene.finish(SECOND + 10)
    assert scene.planner.wake_at() == 3.0
    assert scene.start(3 * SECOND - 1) == []
    assert scene.start(3 * SECOND) == [[film]]
    assert scene.planner.wake_at() is None


def test_a_live_frame_that_was_refused_for_an_offline_one_is_not_refused_again() -> None:
    scene = Scene(a={"net": Cost(0, 10), "film": Cost(0, 100, most=1)})
    for _ in range(3):
        scene.film(variant="film")
    scene.start()
    refused = scene.offer(20, at=50)
    assert scene.verdicts[refused].retry_after
    assert scene.finish(100) == []
    again = scene.offer(20, at=110)
    assert scene.start(110) == [[again]]


def test_it_does_not_wake_for_what_no_idle_executor_could_begin() -> None:
    scene = Scene(a={"film": Cost(0, 100)}, b=NET)
    for _ in range(9):
        scene.film(variant="film")
    scene.start()
    assert list(scene.planner.waiting)
    assert scene.planner.wake_at() is None


def test_offline_frames_that_are_refused_are_told_of_the_network_that_they_want() -> None:
    scene = Scene(a={"net": Cost(0, 10), "other": Cost(0, 100)})
    late, unserved = scene.film(deadline=99, variant="other"), Frame(["gone", "net"], 0.0, 1.0)
    unserved.priority = late.priority
    scene.put(unserved, 0)
    assert scene.accepted(late, unserved) == [False, False]
    assert [scene.verdicts[frame].retry_after for frame in (late, unserved)] == [None, None]


def test_offline_frames_whose_batch_failed_go_elsewhere_or_are_returned() -> None:
    scene = Scene(a=NET)
    films = [scene.film(), scene.film()]
    scene.start()
    scene.join("b", NET)
    assert scene.fail(5) == []
    assert scene.start(5) == [films]
    assert scene.begun[0].endpoint == "b"
    assert scene.fail(10) == films
