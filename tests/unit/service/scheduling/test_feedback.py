"""Feedback comes to rest where things happen as often as is wanted."""

from __future__ import annotations

import random

from service.scheduling.feedback import Feedback


def test_it_rises_at_once_and_falls_slowly() -> None:
    margin = Feedback(wanted=0.01, step=0.1, least=0.0, most=0.5, start=0.0)
    margin.tell(True)
    assert 0.09 < margin.value < 0.1
    for _ in range(50):
        margin.tell(False)
    assert 0.04 < margin.value < 0.06
    for _ in range(100):
        margin.tell(False)
    assert margin.value == 0


def test_it_stays_within_its_bounds() -> None:
    margin = Feedback(wanted=0.01, step=0.1, least=0.0, most=0.5, start=0.2)
    for _ in range(10):
        margin.tell(True)
    assert margin.value == 0.5


def test_it_settles_where_what_it_prevents_happens_as_often_as_wanted() -> None:
    rng = random.Random(1)
    margin = Feedback(wanted=0.02, step=0.01, least=0.0, most=1.0, start=0.0)
    late = 0
    for number in range(20_000):
        happened = rng.random() ** 4 > margin.value  # the larger the margin, the less often
        margin.tell(happened)
        late += happened and number >= 5000
    assert 0.015 < late / 15_000 < 0.025
