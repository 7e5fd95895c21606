"""How large batches must become to keep up with the demand, and so how much time to set aside for one that waits."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

from service.scheduling.clock import BatchClock
from service.scheduling.executors import Executors
from service.scheduling.jobs import Endpoint, Span, Work

_MEMORY_S = 0.1
_MEMORY = 32  # frames, if they need longer than that: of fewer it could not be told how much is asked for
_STEP = 1.1  # budgets are told apart if one is that many times another
_SHORTEST = 1e-4
_NEVER = 1 << 20  # steps
_EVERY = 16  # frames asked for, or one for every executor, until the sizes are worked out again
_SUDDEN_S = 0.015
_CHANCE = 3.0  # standard deviations that the demand is above the mean by chance


class BatchSizes:
    """What was asked for of late, beside what can be done.

    Args:
        clock: knows how long batches take.
        executors: what there is to run them.
    """

    def __init__(self, clock: BatchClock, executors: Executors) -> None:
        self._clock = clock
        self._executors = executors
        self._version = clock.version
        self._of_clock: dict[tuple[str, Work, int], tuple[float, Span]] = {}
        """What the clock has said."""
        self._demand = 0.0
        """Executor-seconds asked for of late, at full batches; it decays."""
        self._sudden = 0.0
        """The same, and decays sooner."""
        self._demand_at = 0.0
        self._memory = self._short_memory = 0.0
        """Seconds in which they decay."""
        self._budgets: dict[int, float] = {}
        """The same by the frames' budgets, in steps."""
        self._steps: list[int] = []
        self._shares: list[float] = [1.0]
        """Of the demand that can wait for longer than so many steps; one more than there are steps."""
        self._asked = 0
        self._costs: dict[Work, float] = {}
        self._sizes: dict[tuple[str, Work], int] = {}

    def seconds(self, endpoint: Endpoint, work: Work, frames: int) -> float:
        """A batch takes, as predicted; nothing where nothing is known, so that it is tried, and known."""
        return self._known(endpoint.name, work, frames)[0]

    def span(self, endpoint: Endpoint, work: Work, frames: int) -> Span:
        """The time of a batch in a plan."""
        return self._known(endpoint.name, work, frames)[1]

    def forget(self) -> None:
        """There are other endpoints than before."""
        self._of_clock.clear()
        self._sizes.clear()
        self._costs.clear()

    def set_aside(self, endpoint: Endpoint, work: Work, frames: int) -> Span:
        """The time for a batch that waits: as for one so large that such batches keep up with the demand.

        Frames that come later join it, and delay nobody. Were only the seconds set aside that it takes as it is,
        batches would leave each other no time to grow under load: many small ones, which do far less in a second than
        large ones.
        """
        key = (endpoint.name, work)
        size = self._sizes.get(key)
        if size is None:
            size = self._sizes[key] = self._best(endpoint, work)
        return self.span(endpoint, work, max(frames, size))

    def asked(self, work: Work, can_wait: float, now: float) -> float:
        """Somebody wants a frame within so many seconds; returns what it costs."""
        cost = self.cost(work)
        if not self._memory or self._asked >= max(_EVERY, self._executors.count):
            self._refresh(cost)
        self._asked += 1
        passed = self._demand_at - now
        self._demand = self._demand * math.exp(passed / self._memory) + cost
        self._sudden = self._sudden * math.exp(passed / self._short_memory) + cost
        self._demand_at = now
        step = math.floor(math.log(max(can_wait, _SHORTEST), _STEP)) if can_wait < math.inf else _NEVER
        self._budgets[step] = self._budgets.get(step, 0.0) + cost
        return cost

    def cost(self, work: Work) -> float:
        """Executor-seconds of a frame, in a full batch, on the average of the executors that have the network."""
        cost = self._costs.get(work)
        if cost is None:
            cost = self._costs[work] = self._average_cost(work)
        return cost

    def _known(self, endpoint: str, work: Work, frames: int) -> tuple[float, Span]:
        if self._version != self._clock.version:
            self._version = self._clock.version
            self._of_clock.clear()
        key = (endpoint, work, frames)
        known = self._of_clock.get(key)
        if known is None:
            sure = self._clock.predict(endpoint, work, frames) or 0.0
            typical = self._clock.typical(endpoint, work, frames)
            known = self._of_clock[key] = sure, Span(typical, (sure - typical) ** 2)
        return known

    def _average_cost(self, work: Work) -> float:
        executors, rate = 0, 0.0
        for endpoint in self._executors.endpoints.values():
            most = endpoint.variants.get(work.variant)
            seconds = self._clock.typical(endpoint.name, work, most) if most else 0.0
            if most and seconds:
                executors += len(endpoint.executors)
                rate += len(endpoint.executors) * most / seconds
        return executors / rate if rate else 0.0

    def _best(self, endpoint: Endpoint, work: Work) -> int:
        """The number of frames with which the most of the demand is answered; the least if several do.

        Larger batches do more in a second, but frames whose budget is shorter than such a batch, and the wait for an
        executor to begin it, are lost to them.
        """
        most = endpoint.variants[work.variant]
        predict = self._clock.predict
        full = predict(endpoint.name, work, most)
        if full is None:
            return 1
        load = self._load(work)
        wait = 1 + 1 / max(1, self._executors.count)
        best, answered = 1, 0.0
        for frames in range(1, most + 1):
            seconds = predict(endpoint.name, work, frames) or 0.0
            can = (full / most) / (seconds / frames) if seconds else 1.0
            can = min(can, load * self._that_can_wait(seconds * wait))
            if can > answered * 1.001:
                best, answered = frames, can
        return best

    def _that_can_wait(self, seconds: float) -> float:
        """The share of the demand whose budget is that long."""
        return self._shares[bisect_right(self._steps, math.log(max(seconds, _SHORTEST), _STEP) - 1)]

    def _refresh(self, cost: float) -> None:
        """Have all worked out anew, and a tenth forgotten."""
        self._asked = 0
        self._sizes.clear()
        self._costs.clear()
        each = cost / max(1, self._executors.count)
        self._memory = max(_MEMORY_S, _MEMORY * each)
        self._short_memory = min(self._memory, max(_SUDDEN_S, _MEMORY * each))
        self._budgets = {step: 0.9 * of_step for step, of_step in self._budgets.items() if of_step > 1e-6}
        self._steps = sorted(self._budgets)
        total = sum(self._budgets.values())
        left = list(accumulate(self._budgets[step] for step in reversed(self._steps)))
        self._shares = [each / total for each in reversed(left)] + [0.0 if total else 1.0]

    def _load(self, work: Work) -> float:
        """The demand of late, in multiples of what all executors can do with full batches, without what chance adds.

        Time that is set aside in vain refuses frames. A burst shows in the demand of the last moments, in which chance
        does more.
        """
        executors = max(1, self._executors.count)
        load = 0.0
        for demand, memory in ((self._demand, self._memory), (self._sudden, self._short_memory)):
            frames = demand / cost if (cost := self.cost(work)) else 0.0
            by_chance = _CHANCE / math.sqrt(frames) if frames else 1.0
            load = max(load, demand / (memory * executors) * (1 - by_chance)) if memory else load
        return load
