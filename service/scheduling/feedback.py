"""A number that is moved by what happens, until that happens as often as is wanted.

What cannot be known beforehand (how much a whole machine slows down at times, how far a burst goes) shows in how often
a promise was broken or a frame refused.
"""

from __future__ import annotations


class Feedback:
    """Rises by a step each time it happens, and falls so slowly else that both cancel out at the wanted share.

    Args:
        wanted: the share of cases in which it may happen, more than 0 and less than 1.
        step: how much it rises.
        least, most: its bounds.
        start: what it is at first.
    """

    def __init__(self, wanted: float, step: float, least: float, most: float, start: float) -> None:
        self._wanted = wanted
        self._step = step
        self._least = least
        self._most = most
        self.value = start

    def tell(self, happened: bool) -> None:
        """One more case."""
        value = self.value + self._step * ((1.0 if happened else 0.0) - self._wanted)
        self.value = min(self._most, max(self._least, value))
