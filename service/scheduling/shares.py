"""Who has had more than a fair share while there is too little for all. Pure logic: the caller says what time it is.

Shares are max-min fair: everybody gets what he asks for, up to a level at which the sum is what could be given. What
could be given is what was given, so nothing is assumed of how much the service can do.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

_EVERY_S = 0.1
_DECAY = 0.8  # of what is remembered, in every such time
_SCARCE = 1.05  # asked over given, above which there is too little
_TOLERANCE = 1.05  # over the level, before it is called too much
_GRACE = 3.0  # and so many frames


class FairShares:
    """What clients asked for and got of late, in seconds of an executor."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, float] = {}
        self._given: dict[Hashable, float] = {}
        self._over: frozenset[Hashable] = frozenset()
        self._next = -math.inf
        self._cost = 0.0

    def ask(self, client: Hashable, cost: float, now: float) -> bool:
        """A client wants a frame that costs so much; returns whether it has had too much already."""
        if now >= self._next:
            self._weigh()
            self._next = now + _EVERY_S
        self._cost = cost
        self._asked[client] = self._asked.get(client, 0.0) + cost
        return client in self._over

    def give(self, client: Hashable, cost: float) -> None:
        """It is given one."""
        self._given[client] = self._given.get(client, 0.0) + cost

    def _weigh(self) -> None:
        asked, given = sum(self._asked.values()), sum(self._given.values())
        self._over = frozenset()
        if len(self._asked) > 1 and asked > _SCARCE * given:
            most = _TOLERANCE * _level(sorted(self._asked.values()), given) + _GRACE * self._cost
            self._over = frozenset(client for client, had in self._given.items() if had > most)
        least = 0.1 * self._cost
        for table in (self._asked, self._given):
            for client in list(table):
                table[client] *= _DECAY
                if table[client] <= least:
                    del table[client]


def _level(wanted: list[float], in_all: float) -> float:
    """The level at which `wanted` (ascending), cut off there, sum up to `in_all`."""
    left = in_all
    for index, each in enumerate(wanted):
        equal = left / (len(wanted) - index)
        if each >= equal:
            return equal
        left -= each
    return math.inf
