"""Who has had too much, while there is too little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest

from service.scheduling.shares import FairShares


def served(rates: Mapping[str, float], capacity: float, *, fair: bool = True) -> dict[str, float]:
    """The part of its frames that each client is given, who ask for so many a second, of a server that does so many."""
    shares, asked, got = FairShares(), Counter[str](), Counter[str]()
    asks = sorted((number / rate, client) for client, rate in rates.items() for number in range(int(20 * rate)))
    room, then = 1.0, 0.0
    for now, client in asks:
        room, then = min(5.0, room + (now - then) * capacity), now
        greedy = shares.ask(client, 1.0, now) and fair
        asked[client] += 1
        if room >= 1 and not greedy:
            room -= 1
            shares.give(client, 1.0)
            got[client] += 1
    return {client: got[client] / asked[client] for client in rates}


def test_nobody_has_too_much_while_there_is_enough_for_all() -> None:
    shares = FairShares()
    for number in range(1000):
        client = "much" if number % 50 else "little"
        assert not shares.ask(client, 1.0, number / 100)
        shares.give(client, 1.0)


def test_nobody_who_is_alone_has_too_much() -> None:
    shares = FairShares()
    for number in range(1000):
        assert not shares.ask("alone", 1.0, number / 100)
        if number % 4 == 0:
            shares.give("alone", 1.0)


def test_who_asks_for_most_is_held_to_his_share_and_the_others_have_theirs() -> None:
    rates = {"greedy": 997, "one": 31, "two": 29}
    first_come, fair = served(rates, 200, fair=False), served(rates, 200)
    for client in ("one", "two"):
        assert first_come[client] < 0.2
        assert fair[client] > 0.5
    assert first_come["greedy"] > fair["greedy"] > 0.05


def test_equals_get_the_same() -> None:
    got = served({"one": 200, "two": 201, "three": 199}, 150).values()
    assert max(got) <= 1.3 * min(got)


def test_who_wants_more_than_the_level_comes_down_to_it() -> None:
    rates = {"greedy": 900, "middling": 100, "little": 20}
    first_come, fair = served(rates, 150, fair=False), served(rates, 150)
    assert first_come["middling"] < 0.1
    assert fair["middling"] > 0.4
    assert fair["little"] > 0.4
    assert fair["greedy"] * 900 < 100


@pytest.mark.parametrize("pause", [3.0, 30.0])
def test_what_was_long_ago_is_forgotten(pause: float) -> None:
    shares = FairShares()
    for number in range(400):
        shares.ask("other", 1.0, number / 400)
        shares.ask("greedy", 1.0, number / 400)
        shares.give("greedy", 1.0)
    assert shares.ask("greedy", 1.0, 1.0)
    assert not shares.ask("other", 1.0, 1.0), "he had nothing"
    for number in range(int(pause * 20)):
        shares.ask("other", 1.0, 1.0 + number / 20)
        shares.give("other", 1.0)
    assert not shares.ask("greedy", 1.0, 1.0 + pause)
