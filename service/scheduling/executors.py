"""What runs batches, and what each is going to run."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Mapping

from service.scheduling.jobs import Batch, Job, Span, Work


class Endpoint:
    """An inference server.

    Args:
        name: its name.
        variants: the most frames of a batch, for every network it serves.
    """

    __slots__ = ("executors", "name", "variants")

    def __init__(self, name: str, variants: Mapping[str, int]) -> None:
        self.name = name
        self.variants = dict(variants)
        self.executors: list[Executor] = []


class Executor:
    """Runs one batch at a time, and has a plan of those that wait for it, the most urgent first."""

    __slots__ = ("doubt", "end", "endpoint", "free_at", "gone", "plan", "running", "version")

    def __init__(self, endpoint: Endpoint, now: float) -> None:
        self.endpoint = endpoint
        self.running: Batch | None = None
        self.free_at = now
        """When the running batch is done, as a rule."""
        self.doubt = 0.0
        """About that; see `Span`."""
        self.plan: list[Batch] = []
        self.end = now
        """When the plan is done, as a rule."""
        self.version = 0
        self.gone = False

    def serves(self, job: Job, work: Work) -> bool:
        """Whether it may run that network for that frame."""
        return work.variant in self.endpoint.variants and self.endpoint.name not in job.excluded

    def takes(self, batch: Batch) -> bool:
        """Whether it may run the batch."""
        return all(self.serves(job, batch.work) for job in batch.jobs) and len(batch.jobs) <= self.most(batch.work)

    def most(self, work: Work) -> int:
        """Frames of a batch."""
        return self.endpoint.variants[work.variant]

    def with_batch(self, job: Job, span: Span, now: float) -> tuple[float, int] | None:
        """When a batch of its own would surely be done, and its place in the plan; None if another were late.

        Args:
            job: the frame.
            span: to set aside for it.
            now: the time.
        """
        finish = self.free_at if self.free_at > now else now
        doubt = self.doubt
        due = job.due
        mine = 0.0
        position = 0
        for index, each in enumerate(self.plan):
            if not mine:
                if each.due <= due:
                    finish += each.seconds
                    doubt += each.doubt
                    position = index + 1
                    continue
                finish += span.seconds
                doubt += span.doubt
                mine = finish + math.sqrt(doubt)
            finish += each.seconds
            doubt += each.doubt
            if finish + math.sqrt(doubt) > each.deadline:
                return None
        return (mine or finish + span.seconds + math.sqrt(doubt + span.doubt)), position

    def with_frame(self, batch: Batch, job: Job, span: Span, now: float) -> float | None:
        """When a batch of the plan would surely be done with this frame in it; None if anybody would be late.

        Args:
            batch: one of the plan.
            job: the frame.
            span: to set aside for that batch then.
            now: the time.
        """
        finish = self.free_at if self.free_at > now else now
        doubt = self.doubt
        mine = 0.0
        passed = math.inf
        for each in self.plan:
            if each is batch:
                finish += span.seconds
                doubt += span.doubt
                mine = finish + math.sqrt(doubt)
                if mine > batch.deadline or mine > job.deadline or mine > passed:
                    return None
            else:
                finish += each.seconds
                doubt += each.doubt
                if mine:
                    if finish + math.sqrt(doubt) > each.deadline:
                        return None
                elif each.due > job.due and each.deadline < passed:
                    # The frame would take its batch past this one, which would be done last of them.
                    passed = each.deadline
        return mine

    def order(self) -> None:
        """Put the most urgent batch first."""
        self.plan.sort(key=_due)


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


def _due(batch: Batch) -> float:
    return batch.due
