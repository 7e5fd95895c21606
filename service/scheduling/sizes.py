"""How large batches must become to keep up with the demand, and so how much time to set aside for one that waits."""

from __future__ import annotations

import math

from service.scheduling.clock import BatchClock
from service.scheduling.executors import Endpoint, Executors
from service.scheduling.jobs import Work

_MEMORY_S = 0.1
_EVERY = 16  # frames asked for, until the sizes are worked out again


class BatchSizes:
    """What was asked for of late, beside what can be done.

    Args:
        clock: knows how long batches take.
        executors: what there is to run them.
    """

    def __init__(self, clock: BatchClock, executors: Executors) -> None:
        self._clock = clock
        self._executors = executors
        self._demand = 0.0
        """Executor-seconds asked for of late, at full batches; it decays."""
        self._demand_at = 0.0
        self._asked = 0
        self._sizes: dict[tuple[str, Work], int] = {}

    def seconds(self, endpoint: Endpoint, work: Work, frames: int) -> float:
        """A batch takes, as predicted; nothing where nothing is known, so that it is tried, and known."""
        return self._clock.predict(endpoint.name, work, frames) or 0.0

    def set_aside(self, endpoint: Endpoint, work: Work, frames: int) -> float:
        """Seconds for a batch that waits: as for one so large that such batches keep up with the demand.

        Frames that come later join it, and delay nobody. Were only the seconds set aside that it takes as it is,
        batches would leave each other no time to grow under load: many small ones, which do far less in a second than
        large ones.
        """
        key = (endpoint.name, work)
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = self._keeping_up(endpoint, work)
        return self.seconds(endpoint, work, max(frames, size))

    def asked(self, work: Work, now: float) -> float:
        """Somebody wants a frame; returns what it costs."""
        cost = self.cost(work)
        self._demand = self._demand * math.exp((self._demand_at - now) / _MEMORY_S) + cost
        self._demand_at = now
        self._asked += 1
        if self._asked % _EVERY == 0:
            self._sizes.clear()
        return cost

    def cost(self, work: Work) -> float:
        """Executor-seconds of a frame, in a full batch."""
        for endpoint in self._executors.endpoints.values():
            most = endpoint.variants.get(work.variant)
            if most:
                return self._clock.typical(endpoint.name, work, most) / most
        return 0.0

    def _keeping_up(self, endpoint: Endpoint, work: Work) -> int:
        most = endpoint.variants[work.variant]
        predict = self._clock.predict
        full = predict(endpoint.name, work, most)
        if full is None:
            return 1
        load = min(1.0, self._load())
        for frames in range(1, most):
            if full / most >= load * (predict(endpoint.name, work, frames) or 0.0) / frames:
                return frames
        return most

    def _load(self) -> float:
        """The demand of late, in multiples of what all executors can do with full batches."""
        return self._demand / (_MEMORY_S * max(1, self._executors.count))
