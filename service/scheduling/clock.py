"""How long a batch takes: learnt from those that ran, per endpoint, network, frame format and number of frames.

These networks are static graphs, so their times hardly vary (Clockwork, OSDI 2020): the few last batches say what the
next will take. The prediction is one that is seldom exceeded, for it is promised to clients; a single batch that took
far longer than its fellows (a hiccup of the machine) does not raise it, several in a row do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator

from service.scheduling.jobs import Work

_WINDOW = 32
_FEW = 8
_SURE = 3.5  # standard deviations above the mean
_HICCUP = 8.0  # standard deviations, by the median's, above the median
_AGAIN = 4  # hiccups in a row are no hiccups


class _Times:
    """The last batches of one kind, in seconds."""

    __slots__ = ("_last", "_strange", "predicted", "typical")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_WINDOW)
        self._strange = 0
        self.predicted = 0.0
        self.typical = 0.0

    def add(self, seconds: float) -> None:
        if len(self._last) >= _AGAIN and seconds > self._bound():
            self._strange += 1
            if self._strange < _AGAIN:
                return
            self._last.clear()
        self._strange = 0
        self._last.append(seconds)
        count = len(self._last)
        mean = sum(self._last) / count
        deviation = math.sqrt(sum((each - mean) ** 2 for each in self._last) / max(1, count - 1))
        # Few batches have not shown yet how they vary.
        doubt = max(0.0, 1 - count / _FEW) * 0.25
        self.typical = sorted(self._last)[count // 2]
        self.predicted = max(max(self._last), mean + _SURE * deviation) * (1 + doubt)

    def _bound(self) -> float:
        ordered = sorted(self._last)
        median = ordered[len(ordered) // 2]
        spread = sorted(abs(each - median) for each in ordered)[len(ordered) // 2] * 1.4826
        return median + _HICCUP * max(spread, 0.03 * median)


class BatchClock:
    """Predicts and learns.

    Args:
        area: how much there is of a frame of a layout, in any unit; frames of a layout that was never seen are taken to
            need as much more or less time as they are larger or smaller.
    """

    def __init__(self, area: Callable[[Hashable], float] = lambda layout: 1.0) -> None:
        self._area = area
        self._times: dict[tuple[str, Work], dict[int, _Times]] = {}
        self._predicted: dict[tuple[str, Work, int], float] = {}
        self._derived: dict[tuple[str, Work, int], float | None] = {}

    def predict(self, endpoint: str, work: Work, frames: int) -> float | None:
        """Seconds that a batch will hardly exceed; None if nothing like it has ever run."""
        key = (endpoint, work, frames)
        if (seconds := self._predicted.get(key)) is not None:
            return seconds
        if key not in self._derived:
            self._derived[key] = self._derive(endpoint, work, frames)
        return self._derived[key]

    def typical(self, endpoint: str, work: Work, frames: int) -> float:
        """Seconds that a batch takes as a rule: the median, or what is predicted if none like it has run."""
        times = self._times.get((endpoint, work), {}).get(frames)
        return times.typical if times else self.predict(endpoint, work, frames) or 0.0

    def record(self, endpoint: str, work: Work, frames: int, seconds: float) -> None:
        """A batch has taken so long."""
        times = self._times.setdefault((endpoint, work), {}).setdefault(frames, _Times())
        times.add(seconds)
        key = (endpoint, work, frames)
        if self._predicted.get(key) != times.predicted:
            self._predicted[key] = times.predicted
            self._derived.clear()

    def known(self) -> Iterator[tuple[str, Work, int, float]]:
        """Everything learnt: endpoint, work, frames, and the predicted seconds."""
        for (endpoint, work), of_work in self._times.items():
            for frames, times in of_work.items():
                yield endpoint, work, frames, times.predicted

    def forget(self, endpoint: str) -> None:
        """The endpoint has gone; what comes back under its name may be another machine."""
        for key in [key for key in self._times if key[0] == endpoint]:
            del self._times[key]
        self._predicted = {key: seconds for key, seconds in self._predicted.items() if key[0] != endpoint}
        self._derived.clear()

    def _derive(self, endpoint: str, work: Work, frames: int) -> float | None:
        """From what is known of other numbers of frames; else of other layouts; else of other endpoints."""
        if (of_work := self._times.get((endpoint, work))) is not None:
            return _between({number: times.predicted for number, times in of_work.items()}, frames)
        for same_endpoint in (True, False):
            guesses = [
                _between({number: times.predicted for number, times in of_work.items()}, frames)
                * (self._area(work.layout) / self._area(known.layout))
                for (where, known), of_work in self._times.items()
                if known.variant == work.variant and (where == endpoint) == same_endpoint
            ]
            if guesses:
                return max(guesses)
        return None


def _between(seconds: dict[int, float], frames: int) -> float:
    """The time of `frames` frames, from those of other numbers: never less than a larger batch would allow."""
    if frames in seconds:
        return seconds[frames]
    less = max((number for number in seconds if number < frames), default=None)
    more = min((number for number in seconds if number > frames), default=None)
    if less is None:
        assert more is not None
        return seconds[more]
    if more is None:
        return seconds[less] * frames / less
    share = (frames - less) / (more - less)
    return seconds[less] + share * (seconds[more] - seconds[less])
