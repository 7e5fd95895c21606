"""The planner, by hand; times are ticks, and a batch of n takes 10 n unless it is said otherwise."""

from __future__ import annotations

import pytest

from tests.unit.service.scheduling.conftest import NEVER, TICK, Cost, Frame, Scene, ticks

NET = {"net": Cost(0, 10)}
SHARED = {"net": Cost(100, 10)}
ALONE = {"net": Cost(0, 10, most=1)}
LADDER = {"best": Cost(0, 20, most=1), "good": Cost(0, 10, most=1), "fast": Cost(0, 5, most=1)}
SECOND = 1 / TICK


# -- what is accepted, and when it begins ------------------------------------------------------------------------------


def test_an_idle_executor_comes_first_even_before_a_batch_that_could_be_joined() -> None:
    scene = Scene(a=SHARED, b=SHARED)
    first, second = scene.offer(), scene.offer()
    assert scene.start() == [[first], [second]]
    assert {batch.endpoint for batch in scene.begun} == {"a", "b"}
    assert scene.finish_of(second) == 110


def test_frames_join_a_batch_that_waits_until_it_is_full() -> None:
    scene = Scene(a={"net": Cost(100, 10, most=3)})
    frames = [scene.offer() for _ in range(1)]
    assert scene.start() == [frames]
    waiting = [scene.offer(at=number) for number in range(1, 6)]
    assert scene.start(5) == []
    assert list(scene.planner.waiting) == waiting
    assert scene.finish(110) == [waiting[:3]]
    assert scene.finish(240) == [waiting[3:]]


def test_frames_that_cannot_lie_side_by_side_or_want_another_network_share_no_batch() -> None:
    scene = Scene(a={"net": Cost(100, 10), "other": Cost(100, 10)})
    scene.offer()
    scene.start()
    first = scene.offer(at=1)
    scene.slots += 1
    apart, other, lane = scene.offer(at=2), scene.offer(at=3, ladder="other"), scene.offer(at=4, lane=1)
    begun = [scene.finish(at) for at in (110, 220, 330, 440)]
    assert begun == [[[first]], [[apart]], [[other]], [[lane]]]


def test_a_frame_joins_the_batch_that_has_waited_longest_or_else_the_newest() -> None:
    scene = Scene(a=SHARED)
    scene.offer()
    scene.start()
    first = scene.offer()
    scene.slots = 7
    apart, beside_it = scene.offer(), scene.offer()
    scene.slots = first.slot + 1
    beside_first = scene.offer()
    assert scene.finish(110) == [[first, beside_first]]
    assert scene.finish(230) == [[apart, beside_it]]


def test_an_urgent_frame_takes_the_batch_that_it_joins_past_others() -> None:
    scene = Scene(a={**SHARED, "other": Cost(100, 10)})
    scene.offer()
    scene.start()
    other, patient, urgent = scene.offer(500, ladder="other"), scene.offer(900), scene.offer(480)
    assert scene.finish(110) == [[patient, urgent]]
    assert scene.finish(230) == [[other]]


def test_the_most_urgent_batch_of_a_plan_begins_first() -> None:
    scene = Scene(a=ALONE)
    scene.offer()
    scene.start()
    frames = [scene.offer(budget) for budget in (90, 50, 70, 40)]
    assert scene.accepted(*frames) == [True] * 4
    assert [scene.finish(at) for at in (10, 20, 30, 40)] == [[[frames[n]]] for n in (3, 1, 2, 0)]


def test_a_frame_without_a_deadline_is_as_urgent_as_one_with_a_second() -> None:
    scene = Scene(a=ALONE)
    scene.offer()
    scene.start()
    frames = [scene.offer(budget) for budget in (SECOND + 1, NEVER, SECOND - 1)]
    assert [scene.finish(at) for at in (10, 20, 30)] == [[[frames[n]]] for n in (2, 1, 0)]


def test_a_frame_that_would_make_an_accepted_one_late_is_refused() -> None:
    scene = Scene(a=ALONE)
    first, second = scene.offer(10), scene.offer(25)
    scene.start()
    urgent, patient = scene.offer(20), scene.offer(30)
    assert scene.accepted(first, second, urgent, patient) == [True, True, False, True]
    assert scene.finish(10) == [[second]]
    assert scene.finish(20) == [[patient]]


def test_a_frame_that_would_make_the_batch_late_does_not_join_it() -> None:
    scene = Scene(a=SHARED)
    scene.offer()
    scene.start()
    first, second, third = (scene.offer(budget) for budget in (231, 300, 231))
    assert scene.accepted(first, second, third) == [True, True, False]
    assert scene.finish(110) == [[first, second]]


def test_a_frame_without_a_deadline_takes_no_batch_past_one_that_would_then_be_late() -> None:
    scene = Scene(a={"net": Cost(0, 512, most=4), "other": Cost(0, 512, most=1)})
    scene.offer(ladder="other")
    scene.start()
    urgent = scene.offer(1100, ladder="other")
    patient = scene.offer(4000)
    joins = scene.offer()
    assert scene.accepted(urgent, patient, joins) == [True, True, False]
    assert scene.finish(512) == [[urgent]]


def test_a_frame_finds_its_executor_behind_any_number_of_idle_ones_for_other_networks() -> None:
    scene = Scene(a=ALONE)
    scene.join("b", {"other": Cost(0, 10)}, executors=6)
    first, second = scene.offer(), scene.offer(20)
    assert scene.accepted(first, second) == [True, True]


# -- refusal -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("budget", "retry_after"), [(9, None), (10, 20), (25, 5), (12, 18)])
def test_a_refused_frame_may_come_again_unless_its_budget_is_shorter_than_the_network_takes(
    budget: int, retry_after: float | None
) -> None:
    scene = Scene(a=ALONE)
    scene.offer()
    scene.start()
    scene.offer(20)
    frame = scene.offer(budget)
    assert scene.verdicts[frame] == (False, scene.verdicts[frame].finish, retry_after and ticks(retry_after))


def test_there_is_no_use_in_coming_again_where_nobody_serves_the_network() -> None:
    scene = Scene(a=ALONE)
    frames = [scene.offer(ladder="other"), scene.film(variant="other")]
    assert [scene.verdicts[frame].retry_after for frame in frames] == [None, None]
    assert scene.accepted(*frames) == [False, False]


def test_it_may_come_again_if_any_network_of_its_ladder_is_quick_enough() -> None:
    scene = Scene(a={"net": Cost(0, 10, most=1), "slow": Cost(0, 50, most=1)})
    scene.offer()
    scene.start()
    frames = [scene.offer(12, ladder="net slow"), scene.offer(12, ladder="net unknown")]
    assert scene.accepted(*frames) == [False, False]
    assert [scene.verdicts[frame].retry_after for frame in frames] == [ticks(8), ticks(8)]


# -- ladders and shares ------------------------------------------------------------------------------------------------


def test_frames_step_down_as_the_plan_fills_and_time_is_left_for_the_lesser_networks() -> None:
    scene = Scene(a=LADDER)
    scene.offer(ladder="best")
    scene.start()
    frames = [scene.offer(65, ladder="best good fast") for _ in range(5)]
    # A third of 45 that it could wait for the best, of 55 two thirds for the good, all of 60 for the fast.
    # The running one is done at 20: best until 65 - 30 = 35, good until 65 - 18.3 = 46.7, fast until 65.
    assert [frame.work.variant for frame in frames[:4]] == ["good", "good", "fast", "fast"]
    assert [scene.finish_of(frame) for frame in frames[:4]] == [30, 40, 45, 50]
    assert scene.accepted(*frames) == [True] * 5


def test_a_ladder_is_of_no_account_where_an_executor_is_idle() -> None:
    scene = Scene(a=LADDER)
    assert scene.offer(20, ladder="best fast").work.variant == "best"
    assert Scene(a=LADDER).offer(19, ladder="best fast").work.variant == "fast"


def test_a_greedy_client_is_held_to_its_share_and_the_others_are_not() -> None:
    scene = Scene(a=ALONE)
    accepted = dict.fromkeys(("greedy", "one", "two", "three", "four"), 0)
    for at in range(3000):
        if scene.begun and ticks(at) >= scene.begun[0].began + scene.begun[0].seconds:
            scene.finish(at)
        for number, client in enumerate(accepted):
            if at % 50 == 10 * number or (client == "greedy" and at % 2 == 0):
                frame = scene.offer(45, at=at, client=client)
                scene.start(at)
                accepted[client] += at >= 1000 and scene.verdicts[frame].accepted
    # 200 frames can be done in this time; the four want 40 each.
    modest = [count for client, count in accepted.items() if client != "greedy"]
    assert min(modest) >= 30
    assert accepted["greedy"] <= 80
    assert sum(accepted.values()) > 190, "what the others leave is his"


def test_one_modest_client_beside_a_greedy_one_has_most_of_what_it_wants() -> None:
    scene = Scene(a=ALONE)
    accepted = {"greedy": 0, "modest": 0}
    for at in range(6000):
        if scene.begun and ticks(at) >= scene.begun[0].began + scene.begun[0].seconds:
            scene.finish(at)
        for client in ["greedy", *(["modest"] if at % 40 == 7 else [])]:
            frame = scene.offer(45, at=at, client=client)
            scene.start(at)
            accepted[client] += at >= 2000 and scene.verdicts[frame].accepted
    # 400 frames can be done in this time; it wants 100.
    assert accepted["modest"] >= 60
    assert sum(accepted.values()) > 380, "what it leaves is the other's"


# -- stealing and dropping ---------------------------------------------------------------------------------------------


def busy_pair(waiting: dict[str, float]) -> tuple[Scene, list[Frame]]:
    """Frames of these networks and budgets wait for `a`, which is busy until 100; `b` is until 10."""
    scene = Scene(a={"net": Cost(0, 100, most=1), "other": Cost(0, 10, most=1)}, b=ALONE)
    scene.offer()
    scene.offer()
    scene.start()
    scene.clock.learn("b", net=Cost(0, 1000, most=1))
    frames = [scene.offer(budget, ladder=network.split(".")[0]) for network, budget in waiting.items()]
    assert all(frame.batch and frame.batch.endpoint == "a" for frame in frames)
    scene.clock.learn("b", net=Cost(0, 10, most=1))
    return scene, frames


def test_an_executor_with_nothing_to_do_takes_the_most_urgent_that_waits_for_another() -> None:
    scene, (patient, urgent) = busy_pair({"net.1": 500, "net.2": 400})
    assert scene.finish(10, 1) == [[urgent]]
    assert scene.begun[-1].endpoint == "b"
    assert scene.finish(20, 1) == [[patient]]
    assert scene.finish(30, 1) == []
    assert scene.finish(100) == []


def test_it_passes_over_what_it_may_not_run() -> None:
    scene, (other, net) = busy_pair({"other": 200, "net": 400})
    assert scene.finish(10, 1) == [[net]]
    assert list(scene.planner.waiting) == [other]
    assert scene.finish(100) == [[other]]


def test_it_leaves_what_it_would_be_late_with() -> None:
    scene, (frame,) = busy_pair({"net": 200})
    scene.clock.learn("b", net=Cost(0, 191, most=1))
    assert scene.finish(10, 1) == []
    assert scene.finish(100) == [[frame]]


def test_what_an_executor_leaves_in_its_plan_is_taken_by_one_that_was_idle_before() -> None:
    scene = Scene(a={"net": Cost(0, 10, most=1)}, b={"net": Cost(0, 20, most=1)})
    scene.start()
    patient, urgent = scene.offer(20), scene.offer(10)
    assert scene.start() == [[urgent], [patient]]
    assert [batch.endpoint for batch in scene.begun] == ["a", "b"]


def test_frames_that_have_become_late_are_dropped_before_they_begin() -> None:
    scene = Scene(a=ALONE)
    scene.offer()
    scene.start()
    late, later = scene.offer(20), scene.offer(40)
    assert scene.finish(11) == [[later]]
    assert scene.dropped == [late]
    assert late.batch is None
    assert scene.finish(21) == []


def test_of_a_batch_that_has_become_too_long_the_half_begins() -> None:
    scene = Scene(a=SHARED)
    scene.offer()
    scene.start()
    frames = [scene.offer(250) for _ in range(4)]
    assert scene.finish(125) == [frames[:2]]
    assert scene.finish(240) == []
    assert scene.dropped == frames[2:]
