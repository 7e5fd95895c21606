"""How long a batch takes: learnt from those that ran, per endpoint, network, frame format and number of frames.

These networks are static graphs, so their times hardly vary (Clockwork, OSDI 2020): the few last batches say what the
next will take. The prediction is one that is seldom exceeded, for it is promised to clients; a single batch that took
far longer than its fellows (a hiccup of the machine) does not raise it, several in a row do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

from service.scheduling.jobs import Work

_WINDOW = 32
_OLD_S = 20.0  # the service is not what it was so long ago
_VERY_OLD_S = 60.0  # sizes that have not run for so long are derived from those that have
_FEW = 8
_SAME = 1e-4
_SURE = 2.75  # standard deviations above the mean
_HICCUP = 8.0  # standard deviations, by the median's, above the median
_AGAIN = 4  # hiccups in a row are no hiccups
_ALIKE = 4.0  # layouts that differ more tell nothing of each other
_MOST_KINDS = 256  # of endpoint, network and layout: clients choose layouts


class _Expected(NamedTuple):
    """What a batch will take, in seconds."""

    typical: float
    """As a rule."""
    sure: float
    """It will hardly take longer."""


class _Times:
    """The last batches of one number of frames, in seconds."""

    __slots__ = ("_last", "_strange", "count", "latest", "longest", "mean", "median", "squares")

    def __init__(self) -> None:
        self._last: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        """When they were done, and how long they took."""
        self._strange = 0
        self.latest = 0.0
        self.count = 0
        self.longest = 0.0
        self.mean = 0.0
        self.median = 0.0
        self.squares = 0.0
        """Of the deviations from the mean, relative to it; their sum."""

    def add(self, seconds: float, now: float) -> None:
        self.latest = now
        last = self._last
        while last and last[0][0] < now - _OLD_S:
            last.popleft()
        if len(last) >= _AGAIN and seconds > self.longest and seconds > _bound([each for _, each in last]):
            self._strange += 1
            if self._strange < _AGAIN:
                return
            last.clear()
        elif len(last) == 1 and last[0][1] > 2 * seconds:
            last.clear()  # the first batch of its kind has also paid for what it found cold
        self._strange = 0
        last.append((now, seconds))
        known = sorted([each for _, each in last])
        self.count = len(known)
        # The very longest of many may have been a hiccup that was not large enough to be told as one.
        self.longest = known[-2 if self.count >= _FEW else -1]
        self.median = known[self.count // 2]
        self.mean = mean = sum(known) / self.count
        self.squares = sum([(each / mean - 1) ** 2 for each in known]) if mean else 0.0


def _bound(known: list[float]) -> float:
    """What is longer than that is a hiccup."""
    ordered = sorted(known)
    median = ordered[len(ordered) // 2]
    spread = sorted(abs(each - median) for each in ordered)[len(ordered) // 2] * 1.4826
    return median + _HICCUP * max(spread, 0.03 * median)


class _Kind:
    """The batches of one network and format on one endpoint.

    How much their times vary is taken from all of them together: a number of frames that is seldom seen would not tell.
    """

    __slots__ = ("sizes",)

    def __init__(self) -> None:
        self.sizes: dict[int, _Times] = {}

    def add(self, frames: int, seconds: float, now: float) -> None:
        self.sizes.setdefault(frames, _Times()).add(seconds, now)
        for size in [size for size, times in self.sizes.items() if times.latest < now - _VERY_OLD_S]:
            del self.sizes[size]

    def expected(self) -> dict[int, _Expected]:
        """By the number of frames."""
        seen = sum([times.count for times in self.sizes.values()])
        squares = sum([times.squares for times in self.sizes.values()])
        deviation = math.sqrt(squares / max(1, seen - len(self.sizes)))
        # Few batches have not shown yet how they vary.
        unknown = max(0.0, 1 - seen / _FEW) * 0.25
        return {
            frames: _Expected(
                times.median,
                max(times.longest, times.mean * (1 + _SURE * deviation * math.sqrt(1 + 1 / times.count) + unknown)),
            )
            for frames, times in self.sizes.items()
        }


class BatchClock:
    """Predicts and learns.

    Args:
        area: how much there is of a frame of a layout, in any unit; frames of a layout that was never seen are taken to
            need as much more or less time as they are larger or smaller than others of up to four times the size.
    """

    def __init__(self, area: Callable[[Hashable], float] = lambda layout: 1.0) -> None:
        self._area = area
        self.version = 0
        """Another whenever what it says is another."""
        # Least recently run first.
        self._kinds: dict[tuple[str, Work], _Kind] = {}
        self._expected: dict[tuple[str, Work], dict[int, _Expected]] = {}
        self._derived: dict[tuple[str, Work], dict[int, _Expected | None]] = {}

    def predict(self, endpoint: str, work: Work, frames: int) -> float | None:
        """Seconds that a batch will hardly exceed; None if nothing like it has ever run."""
        found = self._find(endpoint, work, frames)
        return None if found is None else found.sure

    def typical(self, endpoint: str, work: Work, frames: int) -> float:
        """Seconds that a batch takes as a rule; 0 if nothing like it has ever run."""
        found = self._find(endpoint, work, frames)
        return 0.0 if found is None else found.typical

    def record(self, endpoint: str, work: Work, frames: int, seconds: float, now: float) -> None:
        """A batch has taken so long."""
        key = (endpoint, work)
        kind = self._kinds[key] = self._kinds.pop(key, None) or _Kind()
        kind.add(frames, seconds, now)
        learnt, known = kind.expected(), self._expected.get(key)
        if known is None:
            self._derived.clear()
        elif known.keys() == learnt.keys() and all(map(_alike, known.values(), learnt.values())):
            return
        self.version += 1
        self._expected[key] = learnt
        self._derived.pop(key, None)
        if len(self._kinds) > _MOST_KINDS:
            self._drop(next(iter(self._kinds)))

    def known(self) -> Iterator[tuple[str, Work, int, float]]:
        """Everything learnt: endpoint, work, frames, and the predicted seconds."""
        for (endpoint, work), sizes in self._expected.items():
            for frames, known in sizes.items():
                yield endpoint, work, frames, known.sure

    def forget(self, endpoint: str) -> None:
        """The endpoint has gone; what comes back under its name may be another machine."""
        for key in [key for key in self._kinds if key[0] == endpoint]:
            self._drop(key)

    def _drop(self, key: tuple[str, Work]) -> None:
        self.version += 1
        del self._kinds[key], self._expected[key]
        self._derived.clear()

    def _find(self, endpoint: str, work: Work, frames: int) -> _Expected | None:
        of_kind = self._derived.setdefault((endpoint, work), {})
        try:
            return of_kind[frames]
        except KeyError:
            found = of_kind[frames] = self._derive(endpoint, work, frames)
            return found

    def _derive(self, endpoint: str, work: Work, frames: int) -> _Expected | None:
        """From what is known of other numbers of frames; else of other layouts; else of other endpoints."""
        if (sizes := self._expected.get((endpoint, work))) is not None:
            return sizes.get(frames) or _between(sizes, frames, 1.0)
        area = self._area(work.layout)
        for same_endpoint in (True, False):
            guesses: list[tuple[float, _Expected]] = []
            for (where, known), sizes in self._expected.items():
                larger = area / self._area(known.layout)
                alike = known.variant == work.variant and 1 / _ALIKE <= larger <= _ALIKE
                if alike and (where == endpoint) == same_endpoint:
                    guesses.append((abs(math.log(larger)), _between(sizes, frames, larger)))
            if guesses:
                nearest = min(distance for distance, _ in guesses)
                return max((guess for distance, guess in guesses if distance == nearest), key=lambda guess: guess.sure)
        return None


def _alike(one: _Expected, other: _Expected) -> bool:
    """So nearly the same that it makes no difference."""
    return abs(one.sure - other.sure) <= _SAME * one.sure and abs(one.typical - other.typical) <= _SAME * one.typical


def _between(known: dict[int, _Expected], frames: int, scale: float) -> _Expected:
    """What `frames` frames take, from what other numbers do: never less than a larger batch would allow."""
    less = max((number for number in known if number <= frames), default=None)
    more = min((number for number in known if number >= frames), default=None)
    if less is None or more is None:
        nearest = less or more
        assert nearest is not None
        factor = scale * max(1.0, frames / nearest)
        return _Expected(known[nearest].typical * factor, known[nearest].sure * factor)
    share = (frames - less) / (more - less) if more > less else 0.0
    below, above = known[less], known[more]
    return _Expected(
        scale * (below.typical + share * (above.typical - below.typical)),
        scale * (below.sure + share * (above.sure - below.sure)),
    )
