"""Which networks a session's frames may be answered by: a lesser one at once where need be, a better one after a while.

Pictures that change between two networks from frame to frame flicker, and that is worse than the lesser of the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_FIRST_HOLD_S = 1.0
_LONGEST_HOLD_S = 8.0


class LadderPosition:
    """Where on the ladder a session stands. Rungs are counted from 0, the best."""

    def __init__(self) -> None:
        self._rung = 0
        self._hold_s = _FIRST_HOLD_S
        """So long it stays on a rung before the next better one is tried; twice as long after each try in vain."""
        self._since = -math.inf
        self._climbed_at = -math.inf

    def open_to(self, ladder: Sequence[T], now: float) -> Sequence[T]:
        """What may answer the next frame, best first: from where it stands downwards, or from one rung above."""
        rung = min(self._rung, len(ladder) - 1)
        return ladder[max(0, rung - self._tries(now)) :]

    def answered_by(self, rung: int, now: float) -> None:
        """A frame was accepted for the ladder's rung of that number."""
        if rung > self._rung:
            self._in_vain(now - self._climbed_at < self._hold_s)
        elif rung < self._rung:
            self._climbed_at = now
        elif self._tries(now):
            self._in_vain(True)
        else:
            return
        self._rung = rung
        self._since = now

    def _tries(self, now: float) -> bool:
        return self._rung > 0 and now - self._since >= self._hold_s

    def _in_vain(self, again: bool) -> None:
        self._hold_s = min(2 * self._hold_s, _LONGEST_HOLD_S) if again else _FIRST_HOLD_S
