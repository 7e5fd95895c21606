"""Decides which frames are inferred when, where and with which network.

An *executor* runs one batch at a time; an endpoint has one or more. Every executor has a plan: the batches that it will
run, those with the earliest deadlines first, each with the time it will take. A frame is accepted only if there is a
plan in which it and everything accepted before it is done in time: it starts at once where an executor is idle, or
joins a batch that waits, or begins a batch of its own on one of the executors that are done soonest. So what will be
late is known, and refused, when it arrives. An executor never waits for company: when it is free it begins the next
batch, as large as it has become by then, or takes one that waits for another executor.

Not all of the time that a frame could wait is open to everyone. A frame that may be answered by lesser networks waits
less for a better one, so that there is time left for those; and a client that has more than its share of the frames in
the plan waits less than others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from service.scheduling.clock import BatchClock
from service.scheduling.executors import Executors
from service.scheduling.feedback import Feedback
from service.scheduling.jobs import Batch, Endpoint, Executor, Job, Priority, Verdict, Work
from service.scheduling.offline import OfflineQueue
from service.scheduling.shares import FairShares
from service.scheduling.sizes import BatchSizes

_CANDIDATES = 3
_MAY_BE_LATE = 0.004  # of the batches
_MAY_BE_REFUSED = 0.003  # of the frames that lesser networks may answer
_VICTIMS = 8
_GREEDY = 0.35  # of the time that it may wait is what a client may who has had more than his share


class Planner:
    """The plan of all executors.

    Args:
        clock: knows how long batches take, and is told how long they took.
    """

    def __init__(self, clock: BatchClock) -> None:
        self._clock = clock
        self._executors = Executors()
        self._sizes = BatchSizes(clock, self._executors)
        self._shares = FairShares()
        self._open: dict[Work, dict[Batch, None]] = {}
        """Live batches that wait and have room."""
        self._offline = OfflineQueue(self._sizes)
        self._margin = Feedback(_MAY_BE_LATE, step=0.02, least=0.0, most=0.5, start=0.0)
        """Of the time that a frame has, what the plan leaves free: batches were late that should not have been."""
        self._reserve = Feedback(_MAY_BE_REFUSED, step=0.1, least=0.5, most=3.0, start=1.0)
        """How much less time is open to better networks, as an exponent: frames were refused even by the least."""
        self._dropped: list[Job] = []

    @property
    def endpoints(self) -> list[str]:
        """Those that are there."""
        return list(self._executors.endpoints)

    @property
    def waiting(self) -> Iterator[Job]:
        """Frames that were accepted and have not begun."""
        for executor in self._executors.loaded:
            for batch in executor.plan:
                yield from batch.jobs
        yield from self._offline

    def join(self, endpoint: str, executors: int, variants: Mapping[str, int], now: float) -> list[Job]:
        """An endpoint is there, or is another than before.

        Args:
            endpoint: its name.
            executors: batches that it runs at the same time.
            variants: the most frames of a batch, for every network it serves.
            now: the time.

        Returns:
            Frames that waited for what it no longer has, and found no other place.
        """
        known = self._executors.endpoints.get(endpoint)
        if known is not None and len(known.executors) == executors and known.variants == variants:
            return []
        if known is not None and len(known.executors) == executors:
            orphans = self._exchange_variants(known, variants, now)
        else:
            orphans = self._remove(endpoint)
            self._executors.add(endpoint, executors, variants, now)
        self._sizes.forget()
        return self._replace_all(orphans, now)

    def leave(self, endpoint: str, now: float) -> list[Job]:
        """An endpoint is gone; returns the frames that waited for it and found no other place.

        Batches that run there are still to be reported, by `finish` or `fail`.
        """
        orphans = self._remove(endpoint)
        self._clock.forget(endpoint)
        self._sizes.forget()
        return self._replace_all(orphans, now)

    def offer(self, job: Job, now: float) -> Verdict:
        """Accept a frame into the plan, or refuse it."""
        if job.priority is Priority.OFFLINE:
            return self._offer_offline(job, now)
        has = job.latest - job.arrival
        if has < math.inf:
            job.deadline = job.latest - self._margin.value * has
        greedy = self._shares.ask(job.client, self._sizes.asked(job.choices[0], has, now), now)
        rungs = len(job.choices)
        for rung, work in enumerate(job.choices):
            share = ((rung + 1) / rungs) ** self._reserve.value
            if greedy and (rungs == 1 or share < 1):
                share *= _GREEDY
            finish = self._place(job, work, share, now)
            if finish is not None:
                self._shares.give(job.client, self._sizes.cost(work))
                assert job.batch is not None
                assert job.batch.executor is not None
                alone = self._sizes.seconds(job.batch.executor.endpoint, work, 1)
                self._offline.live_came(has - alone, now)
                self._learn_reserve(job, refused=False)
                return Verdict(True, finish)
        verdict = self._refusal(job, job.choices, now)
        self._learn_reserve(job, refused=verdict.retry_after is not None)
        return verdict

    def start(self, now: float) -> tuple[list[Batch], list[Job]]:
        """Begin what can begin now; to be called after every other call, as soon as the offered frames are in place.

        Returns:
            Batches to be run at once, each to be reported by `finish` or `fail`; and frames that were accepted but
            would be late, which are not run.
        """
        begun: list[Batch] = []
        if self._offline.forget(now) and self._offline:
            self._executors.ready.extend(self._executors.idle)
        while self._executors.ready:
            ready, self._executors.ready = dict.fromkeys(self._executors.ready), []
            # Those that have a plan first: what they leave, others may take.
            for executor in sorted(ready, key=lambda executor: not executor.plan):
                if executor.running is not None or executor.gone:
                    continue
                batch = self._next(executor, now)
                if batch is not None:
                    batch.seconds, batch.doubt = self._sizes.span(executor.endpoint, batch.work, len(batch.jobs))
                    self._executors.began(executor, batch, now)
                    begun.append(batch)
                    if executor.plan:
                        self._executors.ready.extend(self._executors.idle)
        dropped, self._dropped = self._dropped, []
        return begun, dropped

    def finish(self, batch: Batch, now: float) -> None:
        """A batch is done."""
        assert batch.executor is not None
        if not batch.executor.gone:
            self._clock.record(batch.endpoint, batch.work, len(batch.jobs), now - batch.began, now)
        self._executors.released(batch.executor, now)
        for job in batch.jobs:
            job.batch = None
        if batch.latest < math.inf:
            self._margin.tell(now > batch.latest)

    def fail(self, batch: Batch, now: float, *, elsewhere: Callable[[Job], bool] = lambda job: True) -> list[Job]:
        """A batch has failed; its frames are planned on other endpoints if there is time.

        Args:
            batch: one that `start` gave.
            now: the time.
            elsewhere: whether a frame may be inferred again.

        Returns:
            Those that may not, or for which there is no time.
        """
        assert batch.executor is not None
        self._executors.released(batch.executor, now)
        lost: list[Job] = []
        for job in batch.jobs:
            job.batch = None
            job.excluded |= {batch.endpoint}
            if not elsewhere(job) or not self._replace(job, now):
                lost.append(job)
        return lost

    def withdraw(self, job: Job) -> bool:
        """A frame's caller has gone; returns whether it still waited."""
        batch = job.batch
        if batch is None:
            return False
        executor = batch.executor
        if executor is None:
            self._offline.remove(job)
        elif executor.running is batch:
            return False
        else:
            self._take_out(executor, batch, [job])
        return True

    def wake_at(self) -> float | None:
        """When `start` is to be called if nothing happens before: offline frames may begin then."""
        return self._offline.less_hindered_at if self._offline and self._executors.idle else None

    # Accepting.

    def _place(self, job: Job, work: Work, share: float, now: float) -> float | None:
        """Put a live frame where it is done first; returns when, or None if that is too late.

        `share` is of the time it could wait that it may.
        """
        for executor in self._executors.idle:
            if executor.plan or not executor.serves(job, work):
                continue
            finish = now + self._sizes.seconds(executor.endpoint, work, 1)
            if finish <= job.latest:
                self._insert(executor, 0, job, work, now)
                return finish
        of_work = self._open.get(work)
        if of_work:
            oldest, newest = next(iter(of_work)), next(reversed(of_work))
            finish = self._join(job, oldest, share, now)
            if finish is None and newest is not oldest:
                finish = self._join(job, newest, share, now)
            if finish is not None:
                return finish
        best: Executor | None = None
        best_finish = math.inf
        position = 0
        for executor in self._executors.soonest(_CANDIDATES, job, work):
            found = executor.with_batch(job, self._sizes.set_aside(executor.endpoint, work, 1), now)
            if found is None or found[0] >= best_finish:
                continue
            if found[0] <= job.limit(share, self._sizes.seconds(executor.endpoint, work, 1)):
                best, (best_finish, position) = executor, found
        if best is not None:
            self._insert(best, position, job, work, now)
            return best_finish
        return None

    def _insert(self, executor: Executor, position: int, job: Job, work: Work, now: float) -> None:
        """Let a frame begin a batch of its own."""
        job.work = work
        self._put(executor, position, Batch(work, [job]), now)

    def _join(self, job: Job, batch: Batch, share: float, now: float) -> float | None:
        """Add the frame to a batch that waits; returns when that is done, or None if it cannot be."""
        executor, work = batch.executor, batch.work
        assert executor is not None
        if not executor.serves(job, work):
            return None
        frames = len(batch.jobs) + 1
        span = self._sizes.set_aside(executor.endpoint, work, frames)
        finish = executor.with_frame(batch, job, span, now)
        if finish is None or finish > job.limit(share, self._sizes.seconds(executor.endpoint, work, 1)):
            return None
        if not job.lie_after(batch.jobs[-1]):
            return None
        due = batch.due
        batch.add(job)
        job.work = work
        batch.seconds, batch.doubt = span
        if batch.due < due:
            executor.order()
        if frames >= executor.most(work):
            self._close(batch)
        self._executors.changed(executor, now)
        return finish

    def _offer_offline(self, job: Job, now: float) -> Verdict:
        work = job.work = job.choices[0]
        serving = [executor for executor in self._executors.serving(work) if executor.serves(job, work)]
        if not serving or now + self._alone(job, work) > job.deadline:
            return self._refusal(job, [work], now)
        self._offline.add(job, max(executor.most(work) for executor in serving))
        self._executors.ready.extend(self._executors.idle)
        return Verdict(True, math.inf)

    def _refusal(self, job: Job, choices: Sequence[Work], now: float) -> Verdict:
        alone = finish = math.inf
        for work in choices:
            seconds = self._alone(job, work)
            alone = min(alone, seconds)
            for executor in self._executors.soonest(1, job, work):
                finish = min(finish, max(now, executor.end) + seconds)
        if alone == math.inf or job.arrival + alone > job.latest:
            return Verdict(False, now + alone, None)
        if job.priority is Priority.LIVE:
            self._offline.live_came(job.latest - job.arrival - alone, now)
        return Verdict(False, finish, max(alone / 2, finish - job.deadline))

    def _alone(self, job: Job, work: Work) -> float:
        """What a frame takes where it is done fastest; infinite if it is done nowhere."""
        serving = (executor for executor in self._executors.serving(work) if executor.serves(job, work))
        return min((self._sizes.seconds(executor.endpoint, work, 1) for executor in serving), default=math.inf)

    def _learn_reserve(self, job: Job, *, refused: bool) -> None:
        if len(job.choices) > 1:
            self._reserve.tell(refused)

    # Beginning.

    def _next(self, executor: Executor, now: float) -> Batch | None:
        """Take the batch that an idle executor is to begin."""
        while executor.plan or self._steal(executor, now):
            batch = executor.plan[0]
            if self._in_time(executor, batch, now):
                del executor.plan[0]
                self._close(batch)
                return batch
        if not self._offline:
            return None
        batch, dropped = self._offline.next(executor, now)
        self._dropped += dropped
        return batch

    def _in_time(self, executor: Executor, batch: Batch, now: float) -> bool:
        """Whether the first batch of a plan may begin; if not, what would be late is taken out of it."""
        endpoint, work = executor.endpoint.name, batch.work
        if now + self._clock.typical(endpoint, work, len(batch.jobs)) <= batch.latest:
            return True
        alone = self._clock.typical(endpoint, work, 1)
        late = [job for job in batch.jobs if now + alone > job.latest]
        if late:
            self._margin.tell(True)
            self._dropped += late
            self._take_out(executor, batch, late)
            return False
        if len(batch.jobs) == 1:
            return True
        half = len(batch.jobs) // 2
        self._exchange(executor, batch, [Batch(work, batch.jobs[:half]), Batch(work, batch.jobs[half:])])
        return False

    def _steal(self, executor: Executor, now: float) -> bool:
        """Move the most urgent batch that it takes in time, of the most loaded executor, to one that is idle."""
        victim: Executor | None = None
        batch: Batch | None = None
        for other in itertools.islice(self._executors.loaded, _VICTIMS):
            if other is executor or other.running is None or (victim and other.end <= victim.end):
                continue
            for each in other.plan:
                if executor.takes(each) and (
                    now + self._sizes.seconds(executor.endpoint, each.work, len(each.jobs)) <= each.latest
                ):
                    victim, batch = other, each
                    break
        if victim is None or batch is None:
            return False
        victim.plan.remove(batch)
        self._close(batch)
        self._executors.changed(victim, now)
        self._put(executor, 0, batch, now)
        return True

    # Bookkeeping.

    def _put(self, executor: Executor, position: int, batch: Batch, now: float) -> None:
        """Have a batch wait for an executor."""
        batch.executor = executor
        batch.seconds, batch.doubt = self._sizes.set_aside(executor.endpoint, batch.work, len(batch.jobs))
        executor.plan.insert(position, batch)
        if len(batch.jobs) < executor.most(batch.work):
            self._open.setdefault(batch.work, {})[batch] = None
        else:
            self._close(batch)
        if executor.running is None:
            self._executors.ready.append(executor)
        self._executors.changed(executor, now)

    def _close(self, batch: Batch) -> None:
        """Nobody joins it any more."""
        of_work = self._open.get(batch.work)
        if of_work is not None:
            of_work.pop(batch, None)
            if not of_work:
                del self._open[batch.work]

    def _take_out(self, executor: Executor, batch: Batch, jobs: Sequence[Job]) -> None:
        """Remove frames that wait; what is left of their batch stays in its place, in pieces if need be."""
        self._exchange(executor, batch, batch.without(jobs))

    def _exchange(self, executor: Executor, batch: Batch, pieces: list[Batch]) -> None:
        index = executor.plan.index(batch)
        self._close(batch)
        executor.plan[index : index + 1] = pieces
        for piece in pieces:
            piece.executor = executor
            piece.seconds, piece.doubt = self._sizes.set_aside(executor.endpoint, piece.work, len(piece.jobs))
        executor.order()
        self._executors.changed(executor, executor.free_at)
        # A piece may be small enough for those that could not take the whole.
        self._executors.ready.extend(self._executors.idle)

    def _exchange_variants(self, endpoint: Endpoint, variants: Mapping[str, int], now: float) -> list[Job]:
        """Executors go on with what they run; returns the frames that wait for what the endpoint no longer has."""
        orphans: list[Job] = []
        for executor in endpoint.executors:
            for batch in list(executor.plan):
                most = variants.get(batch.work.variant, 0)
                if most <= len(batch.jobs):
                    self._close(batch)
                if most < len(batch.jobs):
                    executor.plan.remove(batch)
                    orphans += batch.jobs
            self._executors.changed(executor, now)
            self._executors.ready.append(executor)
        endpoint.variants = dict(variants)
        return orphans

    def _remove(self, endpoint: str) -> list[Job]:
        batches = self._executors.remove(endpoint)
        for batch in batches:
            self._close(batch)
        return [job for batch in batches for job in batch.jobs]

    def _replace_all(self, orphans: Sequence[Job], now: float) -> list[Job]:
        """Plan frames anew; returns those for which there is no place, and offline ones that wait in vain by now."""
        lost = [job for job in orphans if not self._replace(job, now)]
        for job in list(self._offline):
            if not any(executor.serves(job, job.work) for executor in self._executors.serving(job.work)):
                self._offline.remove(job)
                lost.append(job)
        return lost

    def _replace(self, job: Job, now: float) -> bool:
        """Plan a frame anew; false if there is no place for it."""
        job.batch = None
        if job.priority is Priority.OFFLINE:
            return self._offer_offline(job, now).accepted
        choices = job.choices[job.choices.index(job.work) :]
        return any(self._place(job, work, 1.0, now) is not None for work in choices)
