"""What batches are taken to last: learnt, derived, and seldom exceeded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scheduling.clock import BatchClock
from service.scheduling.jobs import Work

SMALL, LARGE = Work("net", 1.0), Work("net", 4.0)


def learnt(clock: BatchClock, endpoint: str, work: Work, frames: int, seconds: float, times: int = 8) -> None:
    for _ in range(times):
        clock.record(endpoint, work, frames, seconds, 0.0)


def test_nothing_is_predicted_of_what_never_ran() -> None:
    clock = BatchClock()
    assert clock.predict("a", SMALL, 1) is None
    assert clock.typical("a", SMALL, 1) == 0
    clock.record("a", SMALL, 1, 1.0, 0.0)
    assert clock.predict("a", Work("other", 1.0), 1) is None


def test_doubt_goes_as_batches_of_the_same_length_come() -> None:
    clock = BatchClock()
    predicted: list[float] = []
    for _ in range(10):
        clock.record("a", SMALL, 1, 1.0, 0.0)
        predicted.append(clock.predict("a", SMALL, 1) or 0)
    assert predicted == sorted(predicted, reverse=True)
    assert predicted[0] > 1.1
    assert predicted[7:] == [1.0] * 3
    assert clock.typical("a", SMALL, 1) == 1


def test_what_varies_is_predicted_with_a_margin_that_is_seldom_exceeded() -> None:
    clock, noise = BatchClock(), random.Random(1)
    late = 0
    for number in range(2000):
        seconds = noise.gauss(1.0, 0.02)
        predicted = clock.predict("a", SMALL, 1)
        late += number >= 8 and predicted is not None and seconds > predicted
        clock.record("a", SMALL, 1, seconds, 0.0)
    assert late / 2000 < 0.005
    assert 1.04 < (clock.predict("a", SMALL, 1) or 0) < 1.15
    assert clock.typical("a", SMALL, 1) == pytest.approx(1, abs=0.02)


def test_one_slow_batch_among_many_that_vary_is_not_what_is_predicted() -> None:
    clock, noise = BatchClock(), random.Random(2)
    for _ in range(31):
        clock.record("a", SMALL, 1, noise.gauss(1.0, 0.1), 0.0)
    clock.record("a", SMALL, 1, 1.7, 0.0)  # not so slow as to be a hiccup
    assert (clock.predict("a", SMALL, 1) or 0) < 1.6


def test_a_hiccup_changes_nothing_and_several_in_a_row_are_the_new_time() -> None:
    clock = BatchClock()
    learnt(clock, "a", SMALL, 1, 1.0)
    learnt(clock, "a", SMALL, 1, 3.0, times=3)
    assert clock.predict("a", SMALL, 1) == 1
    learnt(clock, "a", SMALL, 1, 1.0, times=1)
    learnt(clock, "a", SMALL, 1, 3.0, times=3)
    assert clock.predict("a", SMALL, 1) == 1, "they were not in a row"
    learnt(clock, "a", SMALL, 1, 3.0, times=1)
    assert (clock.predict("a", SMALL, 1) or 0) >= 3
    learnt(clock, "a", SMALL, 1, 3.0)
    assert clock.predict("a", SMALL, 1) == 3, "nothing is left of the old time"


def test_what_has_become_faster_is_believed_when_the_old_times_are_gone() -> None:
    clock = BatchClock()
    learnt(clock, "a", SMALL, 1, 2.0)
    learnt(clock, "a", SMALL, 1, 1.0, times=30)
    assert (clock.predict("a", SMALL, 1) or 0) >= 2
    assert clock.typical("a", SMALL, 1) == 1
    learnt(clock, "a", SMALL, 1, 1.0, times=2)
    assert clock.predict("a", SMALL, 1) == 1


def test_numbers_of_frames_between_known_ones_lie_on_a_line() -> None:
    clock = BatchClock()
    learnt(clock, "a", SMALL, 2, 2.0)
    learnt(clock, "a", SMALL, 6, 4.0)
    assert [clock.predict("a", SMALL, frames) for frames in (2, 4, 5, 6)] == [2, 3, 3.5, 4]
    assert clock.predict("a", SMALL, 1) == 2, "fewer frames take no longer"
    assert clock.predict("a", SMALL, 9) == 6, "more frames take no longer each"
    assert clock.typical("a", SMALL, 4) == 3


def test_other_layouts_take_as_much_longer_as_they_are_larger() -> None:
    clock = BatchClock(area=lambda layout: float(str(layout)))
    learnt(clock, "a", SMALL, 1, 1.0)
    assert clock.predict("a", LARGE, 1) == 4
    learnt(clock, "a", LARGE, 1, 3.0)
    assert clock.predict("a", LARGE, 1) == 3


def test_another_endpoint_is_taken_for_the_slowest_that_is_known_and_its_own_times_come_first() -> None:
    clock = BatchClock(area=lambda layout: float(str(layout)))
    learnt(clock, "a", SMALL, 1, 1.0)
    learnt(clock, "b", SMALL, 1, 2.0)
    assert clock.predict("new", SMALL, 1) == 2
    learnt(clock, "new", LARGE, 1, 40.0)
    assert clock.predict("new", SMALL, 1) == 10, "by its own other layout"


def test_what_was_derived_is_derived_anew_when_more_is_known() -> None:
    clock = BatchClock()
    learnt(clock, "a", SMALL, 1, 1.0)
    assert clock.predict("a", SMALL, 4) == 4
    learnt(clock, "a", SMALL, 8, 2.4)
    assert clock.predict("a", SMALL, 4) == pytest.approx(1.6)


def test_an_endpoint_that_has_gone_is_forgotten() -> None:
    clock = BatchClock()
    learnt(clock, "a", SMALL, 1, 1.0)
    learnt(clock, "b", SMALL, 1, 2.0)
    assert clock.predict("c", SMALL, 1) == 2
    clock.forget("b")
    assert list(clock.known()) == [("a", SMALL, 1, 1.0)]
    assert clock.predict("b", SMALL, 1) == 1, "as any unknown one"
    assert clock.predict("c", SMALL, 1) == 1
    clock.forget("a")
    assert clock.predict("a", SMALL, 1) is None


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=80))
def test_the_prediction_is_never_below_the_rule(seconds: list[float]) -> None:
    clock = BatchClock()
    for each in seconds:
        clock.record("a", SMALL, 1, each, 0.0)
        predicted = clock.predict("a", SMALL, 1)
        assert predicted is not None
        assert min(seconds) <= clock.typical("a", SMALL, 1) <= predicted
