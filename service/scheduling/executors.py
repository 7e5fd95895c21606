"""All executors there are: who is idle, who has batches waiting, who is done soonest."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping

from service.scheduling.jobs import Batch, Endpoint, Executor, Job, Work


class Executors:
    """All there are: who is idle, who has batches waiting, who is done soonest."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.count = 0
        self.idle: dict[Executor, None] = {}
        self.loaded: dict[Executor, None] = {}
        """Those with batches that wait."""
        self.ready: list[Executor] = []
        """Those that may have something to begin."""
        self._soonest: list[tuple[float, int, int, Executor]] = []
        """A heap by the end of their plans; entries of an older version are void."""
        self._serial = itertools.count()

    def add(self, name: str, executors: int, variants: Mapping[str, int], now: float) -> None:
        """An endpoint, with so many executors, all idle."""
        endpoint = Endpoint(name, variants)
        endpoint.executors = [Executor(endpoint, now) for _ in range(executors)]
        self.endpoints[name] = endpoint
        self.count += executors
        for executor in endpoint.executors:
            self.idle[executor] = None
            self.ready.append(executor)
            self._push(executor)

    def remove(self, name: str) -> list[Batch]:
        """Take an endpoint away, if it is there; returns the batches that waited for it."""
        endpoint = self.endpoints.pop(name, None)
        orphans: list[Batch] = []
        for executor in endpoint.executors if endpoint else ():
            executor.gone = True
            self.count -= 1
            self.idle.pop(executor, None)
            self.loaded.pop(executor, None)
            orphans += executor.plan
            executor.plan = []
        return orphans

    def serving(self, work: Work) -> Iterable[Executor]:
        """One executor of every endpoint that has the network."""
        return (each.executors[0] for each in self.endpoints.values() if work.variant in each.variants)

    def began(self, executor: Executor, batch: Batch, now: float) -> None:
        """It runs a batch, which takes the time set aside for it."""
        batch.executor = executor
        batch.began = now
        executor.running = batch
        executor.free_at = now + batch.seconds
        executor.doubt = batch.doubt
        self.idle.pop(executor, None)
        self.changed(executor, now)

    def released(self, executor: Executor, now: float) -> None:
        """It has nothing to run."""
        executor.running = None
        if executor.gone:
            return
        executor.free_at = now
        executor.doubt = 0.0
        self.idle[executor] = None
        self.ready.append(executor)
        self.changed(executor, now)

    def changed(self, executor: Executor, now: float) -> None:
        """Its plan is another."""
        end = executor.free_at if executor.free_at > now else now
        for batch in executor.plan:
            end += batch.seconds
        executor.end = end
        executor.version += 1
        if executor.plan:
            self.loaded[executor] = None
        else:
            self.loaded.pop(executor, None)
        self._push(executor)

    def soonest(self, count: int, job: Job, work: Work) -> list[Executor]:
        """Of those that may run a network for a frame, those whose plans end soonest."""
        found: list[Executor] = []
        seen: list[tuple[float, int, int, Executor]] = []
        heap = self._soonest
        while heap and len(found) < count:
            entry = heapq.heappop(heap)
            executor = entry[3]
            if entry[2] == executor.version and not executor.gone:
                seen.append(entry)
                if executor.serves(job, work):
                    found.append(executor)
        for entry in seen:
            heapq.heappush(heap, entry)
        return found

    def _push(self, executor: Executor) -> None:
        if len(self._soonest) > 64 + 8 * self.count:
            self._soonest = [entry for entry in self._soonest if entry[2] == entry[3].version and not entry[3].gone]
            heapq.heapify(self._soonest)
        heapq.heappush(self._soonest, (executor.end, next(self._serial), executor.version, executor))
