"""A frame to be inferred, the batch it is in, the executor with its plan. Times are seconds on any one clock."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

_PATIENCE_S = 1.0  # a frame without a deadline is as urgent as one with so much time


class Priority(IntEnum):
    """Live frames have somebody waiting for them; offline ones fill the gaps."""

    LIVE = 0
    OFFLINE = 1


class Work(NamedTuple):
    """What frames must have in common to be inferred together."""

    variant: str
    layout: Hashable


class Job:
    """A frame to be inferred.

    Args:
        choices: the networks that may answer, best first.
        arrival: when it came.
        deadline: when its answer must be there; infinite if it need not.
        priority: live or offline.
        client: whose it is, for fair shares.
    """

    __slots__ = ("arrival", "batch", "choices", "client", "deadline", "due", "excluded", "latest", "priority", "work")

    def __init__(
        self,
        choices: Sequence[Work],
        arrival: float,
        deadline: float,
        *,
        priority: Priority = Priority.LIVE,
        client: Hashable = None,
    ) -> None:
        self.choices = choices
        self.arrival = arrival
        self.latest = deadline
        """After that the answer is late."""
        self.deadline = deadline
        """What the plan aims at, which may be sooner."""
        self.due = deadline if deadline < math.inf else arrival + _PATIENCE_S
        """By which it is put in order."""
        self.priority = priority
        self.client = client
        self.work = choices[0]
        """What it was accepted for."""
        self.batch: Batch | None = None
        self.excluded: frozenset[str] = frozenset()
        """Endpoints that have failed on it."""

    def postpone(self, seconds: float) -> None:
        """Have its deadline so much later; it must not be in a plan."""
        self.latest += seconds
        self.deadline = self.latest
        self.due += seconds

    def lie_after(self, other: Job) -> bool:
        """Whether its memory follows that of `other`, or can be made to: only then do they share a batch.

        Asked last, when all else is decided: if it says yes, the frame is in that batch.
        """
        return True

    def limit(self, share: float, alone: float) -> float:
        """When it must be done if it may use this share of the time that it could wait.

        Args:
            share: 0 to 1.
            alone: what it takes if it does not wait.
        """
        if self.deadline == math.inf:
            return math.inf
        return self.deadline - (1 - share) * max(0.0, self.deadline - self.arrival - alone)


class Span(NamedTuple):
    """The time of a batch in a plan."""

    seconds: float
    """That it takes as a rule."""
    doubt: float = 0.0
    """The square of what it may take longer. Batches that run one after the other seldom all do: the root of the sum of
    their doubts is what to allow for them together."""


class Batch:
    """Frames that are, or will be, inferred together; their memory lies side by side in this order."""

    __slots__ = ("began", "deadline", "doubt", "due", "executor", "jobs", "latest", "seconds", "work")

    def __init__(self, work: Work, jobs: list[Job]) -> None:
        self.work = work
        self.jobs = jobs
        self.executor: Executor | None = None
        self.seconds = 0.0
        """Set aside for it in its executor's plan."""
        self.doubt = 0.0
        """Whether they are enough; see `Span`."""
        self.began = 0.0
        self.due = 0.0
        self.deadline = 0.0
        self.latest = 0.0
        self.measure()
        for job in jobs:
            job.batch = self

    @property
    def endpoint(self) -> str:
        """Where it runs."""
        assert self.executor is not None
        return self.executor.endpoint.name

    def add(self, job: Job) -> None:
        """One frame more."""
        self.jobs.append(job)
        job.batch = self
        if job.deadline < self.deadline:
            self.deadline = job.deadline
        if job.latest < self.latest:
            self.latest = job.latest
        if job.due < self.due:
            self.due = job.due

    def measure(self) -> None:
        """Take the earliest of its frames' deadlines."""
        self.due = min(job.due for job in self.jobs)
        self.deadline = min(job.deadline for job in self.jobs)
        self.latest = min(job.latest for job in self.jobs)

    def without(self, jobs: Sequence[Job]) -> list[Batch]:
        """What is left of it, as batches of frames that still lie side by side."""
        runs: list[list[Job]] = [[]]
        for job in self.jobs:
            if job in jobs:
                job.batch = None
                runs.append([])
            else:
                runs[-1].append(job)
        return [Batch(self.work, run) for run in runs if run]


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


class Verdict(NamedTuple):
    """What becomes of a frame that is offered.

    `finish` is when its answer is expected. If it is refused, `retry_after` is the time in which there may be room, or
    None if its budget is too short even on idle executors.
    """

    accepted: bool
    finish: float
    retry_after: float | None = None


def _due(batch: Batch) -> float:
    return batch.due
