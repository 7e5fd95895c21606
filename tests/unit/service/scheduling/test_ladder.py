"""Where on the ladder a session stands: down at once, up after a while, and never to and fro."""

from __future__ import annotations

import itertools

from service.scheduling.ladder import LadderPosition

LADDER = ("runet", "bicubic_plus_plus", "bicubic")


def test_it_begins_with_the_best() -> None:
    assert LadderPosition().open_to(LADDER, 0.0) == LADDER


def test_it_steps_down_at_once_and_stays() -> None:
    position = LadderPosition()
    position.answered_by(2, 10.0)
    assert position.open_to(LADDER, 10.0) == ("bicubic",)
    assert position.open_to(LADDER, 10.9) == ("bicubic",)


def test_it_climbs_one_rung_after_a_while() -> None:
    position = LadderPosition()
    position.answered_by(2, 10.0)
    assert position.open_to(LADDER, 11.0) == ("bicubic_plus_plus", "bicubic")
    position.answered_by(1, 11.0)
    assert position.open_to(LADDER, 11.1) == ("bicubic_plus_plus", "bicubic")
    assert position.open_to(LADDER, 12.0) == LADDER


def test_each_try_in_vain_doubles_the_wait_for_the_next() -> None:
    position = LadderPosition()
    position.answered_by(1, 0.0)
    now, waits = 0.0, list[float]()
    for _ in range(6):
        tried = now
        while len(position.open_to(LADDER, tried)) < 3:
            tried += 0.125
        waits.append(tried - now)
        position.answered_by(1, tried)
        now = tried
    assert waits == [1, 2, 4, 8, 8, 8]


def test_a_climb_that_does_not_last_was_in_vain() -> None:
    position = LadderPosition()
    position.answered_by(1, 0.0)
    position.answered_by(0, 1.0)
    position.answered_by(1, 1.5)
    assert len(position.open_to(LADDER, 3.4)) == 2
    assert len(position.open_to(LADDER, 3.5)) == 3


def test_after_a_climb_that_lasted_the_wait_is_short_again() -> None:
    position = LadderPosition()
    position.answered_by(1, 0.0)
    position.answered_by(1, 1.0)  # in vain: two seconds now
    position.answered_by(0, 3.0)
    position.answered_by(1, 60.0)
    assert len(position.open_to(LADDER, 61.0)) == 3


def test_frames_flicker_less_than_once_a_second_however_the_load_swings() -> None:
    position = LadderPosition()
    rungs: list[int] = []
    for frame in range(600):  # ten seconds at 60 frames a second, with room for the best network in every other frame
        now = frame / 60
        best = 0 if frame % 2 else 1
        rung = max(best, len(LADDER) - len(position.open_to(LADDER, now)))
        position.answered_by(rung, now)
        rungs.append(rung)
    changes = sum(before != after for before, after in itertools.pairwise(rungs))
    assert changes <= 8


def test_a_ladder_that_has_become_shorter_ends_with_its_last_rung() -> None:
    position = LadderPosition()
    position.answered_by(2, 0.0)
    assert position.open_to(LADDER[:2], 0.5) == ("bicubic_plus_plus",)
