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
_OLD_S = 20.0  # the service is not what it was so long ago
_VERY_OLD_S = 60.0  # sizes that have not run for so long are derived from those that have
_FEW = 8
_SURE = 3.5  # standard deviations above the mean
_HICCUP = 8.0  # standard deviations, by the median's, above the median
_AGAIN = 4  # hiccups in a row are no hiccups
_ALIKE = 4.0  # layouts that differ more tell nothing of each other
_MOST_KINDS = 256  # of endpoint, network and layout: clients choose layouts


class _Times:
    """The last batches of one kind, in seconds."""

    __slots__ = ("_last", "_strange", "latest", "predicted", "typical")

    def __init__(self) -> None:
        self._last: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._strange = 0
        self.latest = 0.0
        self.predicted = 0.0
        self.typical = 0.0

    def add(self, seconds: float, now: float) -> None:
        self.latest = now
        last = self._last
        while last and last[0][0] < now - _OLD_S:
            last.popleft()
        known = [each for _, each in last]
        if len(known) >= _AGAIN and seconds > _bound(known):
            self._strange += 1
            if self._strange < _AGAIN:
                return
            known.clear()
        elif len(known) == 1 and known[0] > 2 * seconds:
            known.clear()  # the first batch of its kind has also paid for what it found cold
        self._strange = 0
        if not known:
            last.clear()
        last.append((now, seconds))
        known = [each for _, each in last]
        count = len(known)
        mean = sum(known) / count
        deviation = math.sqrt(sum((each - mean) ** 2 for each in known) / max(1, count - 1))
        # Few batches have not shown yet how they vary.
        doubt = max(0.0, 1 - count / _FEW) * 0.25
        self.typical = sorted(known)[count // 2]
        self.predicted = max(max(known), mean + _SURE * deviation) * (1 + doubt)


def _bound(known: list[float]) -> float:
    """What is longer than that is a hiccup."""
    ordered = sorted(known)
    median = ordered[len(ordered) // 2]
    spread = sorted(abs(each - median) for each in ordered)[len(ordered) // 2] * 1.4826
    return median + _HICCUP * max(spread, 0.03 * median)


class BatchClock:
    """Predicts and learns.

    Args:
        area: how much there is of a frame of a layout, in any unit; frames of a layout that was never seen are taken to
            need as much more or less time as they are larger or smaller than others of up to four times the size.
    """

    def __init__(self, area: Callable[[Hashable], float] = lambda layout: 1.0) -> None:
        self._area = area
        # Least recently run first.
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

    def record(self, endpoint: str, work: Work, frames: int, seconds: float, now: float) -> None:
        """A batch has taken so long."""
        kind = (endpoint, work)
        of_kind = self._times.pop(kind, None) or {}
        self._times[kind] = of_kind
        times = of_kind.setdefault(frames, _Times())
        times.add(seconds, now)
        key = (endpoint, work, frames)
        if self._predicted.get(key) != times.predicted:
            self._predicted[key] = times.predicted
            self._derived.clear()
        for size in [size for size, each in of_kind.items() if each.latest < now - _VERY_OLD_S]:
            self._drop(kind, size)
        if len(self._times) > _MOST_KINDS:
            oldest = next(iter(self._times))
            for size in list(self._times[oldest]):
                self._drop(oldest, size)

    def known(self) -> Iterator[tuple[str, Work, int, float]]:
        """Everything learnt: endpoint, work, frames, and the predicted seconds."""
        for (endpoint, work), of_work in self._times.items():
            for frames, times in of_work.items():
                yield endpoint, work, frames, times.predicted

    def forget(self, endpoint: str) -> None:
        """The endpoint has gone; what comes back under its name may be another machine."""
        for kind in [kind for kind in self._times if kind[0] == endpoint]:
            for size in list(self._times[kind]):
                self._drop(kind, size)

    def _drop(self, kind: tuple[str, Work], frames: int) -> None:
        del self._times[kind][frames]
        del self._predicted[*kind, frames]
        if not self._times[kind]:
            del self._times[kind]
        self._derived.clear()

    def _derive(self, endpoint: str, work: Work, frames: int) -> float | None:
        """From what is known of other numbers of frames; else of other layouts; else of other endpoints."""
        if (of_work := self._times.get((endpoint, work))) is not None:
            return _between({number: times.predicted for number, times in of_work.items()}, frames)
        area = self._area(work.layout)
        for same_endpoint in (True, False):
            guesses: list[tuple[float, float]] = []
            for (where, known), of_work in self._times.items():
                larger = area / self._area(known.layout)
                alike = known.variant == work.variant and 1 / _ALIKE <= larger <= _ALIKE
                if alike and (where == endpoint) == same_endpoint:
                    seconds = _between({number: times.predicted for number, times in of_work.items()}, frames)
                    guesses.append((abs(math.log(larger)), larger * seconds))
            if guesses:
                nearest = min(distance for distance, _ in guesses)
                return max(seconds for distance, seconds in guesses if distance == nearest)
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
