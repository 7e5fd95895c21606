"""Frames that nobody waits for: they are promised nothing, and begun where no live frame waits."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from service.scheduling.jobs import Batch, Executor, Job
from service.scheduling.sizes import BatchSizes

LIVE_MEMORY_S = 2.0


class OfflineQueue:
    """In the order they came.

    A batch is begun only if a live frame that arrived the next instant could still be done within the shortest budget
    of those that came in the last two seconds.

    Args:
        sizes: knows how long batches take.
    """

    def __init__(self, sizes: BatchSizes) -> None:
        self._sizes = sizes
        self._batches: list[Batch] = []
        self._live: deque[tuple[float, float]] = deque()
        """When live frames came, and how long each could wait; but none that came before one that could wait less."""

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Job]:
        """The frames that wait."""
        for batch in self._batches:
            yield from batch.jobs

    @property
    def less_hindered_at(self) -> float | None:
        """When the live frame that could wait least came so long ago that it is left out of account."""
        return self._live[0][0] + LIVE_MEMORY_S if self._live else None

    def live_came(self, can_wait: float, now: float) -> None:
        """A live frame has come, which could wait so many seconds for an executor."""
        while self._live and self._live[-1][1] >= can_wait:
            self._live.pop()
        self._live.append((now, can_wait))

    def forget(self, now: float) -> bool:
        """Leave out of account who came too long ago; returns whether there was anybody."""
        before = len(self._live)
        while self._live and now >= self._live[0][0] + LIVE_MEMORY_S:
            self._live.popleft()
        return len(self._live) < before

    def add(self, job: Job, most: int) -> None:
        """One more frame; in a batch of the last one's if they lie side by side and that has not `most` yet."""
        last = self._batches[-1] if self._batches else None
        if (
            last is not None
            and (last.work, last.jobs[-1].excluded) == (job.work, job.excluded)
            and len(last.jobs) < most
            and job.lie_after(last.jobs[-1])
        ):
            last.add(job)
        else:
            self._batches.append(Batch(job.work, [job]))

    def remove(self, job: Job) -> None:
        """A frame that waits is given up."""
        batch = job.batch
        assert batch is not None
        self._exchange(self._batches.index(batch), batch.without([job]))

    def next(self, executor: Executor, now: float) -> tuple[Batch | None, list[Job]]:
        """Take what an idle executor is to begin.

        Returns:
            The batch, or None; and frames that would be late and are given up.
        """
        self.forget(now)
        dropped: list[Job] = []
        index = 0
        while index < len(self._batches):
            batch = self._batches[index]
            if not executor.serves(batch.jobs[0], batch.work):
                index += 1
                continue
            alone = self._sizes.seconds(executor.endpoint, batch.work, 1)
            late = [job for job in batch.jobs if now + alone > job.deadline]
            if late:
                dropped += late
                self._exchange(index, batch.without(late))
                continue
            frames = self._frames(executor, batch)
            if frames:
                return self._take(index, frames), dropped
            index += 1
        return None, dropped

    def _frames(self, executor: Executor, batch: Batch) -> int:
        """How many of a batch an executor may begin now."""
        frames = min(len(batch.jobs), executor.most(batch.work))
        can_wait = self._live[0][1] if self._live else math.inf
        while frames and self._sizes.seconds(executor.endpoint, batch.work, frames) > can_wait:
            frames -= 1
        return frames

    def _take(self, index: int, frames: int) -> Batch:
        batch = self._batches[index]
        if frames == len(batch.jobs):
            return self._batches.pop(index)
        self._batches[index] = Batch(batch.work, batch.jobs[frames:])
        return Batch(batch.work, batch.jobs[:frames])

    def _exchange(self, index: int, pieces: list[Batch]) -> None:
        self._batches[index : index + 1] = pieces
