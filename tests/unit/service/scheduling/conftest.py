"""Frames in lanes, and a clock that knows beforehand; all times are ticks, so that no sum is ever rounded."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from service.scheduling.clock import BatchClock
from service.scheduling.jobs import Batch, Job, Priority, Verdict, Work
from service.scheduling.planner import Planner

TICK = 1 / 1024
NEVER = float("inf")


class Cost(NamedTuple):
    """What a network's batches take on an endpoint, in ticks, and the most frames of one."""

    base: int
    per_frame: int
    most: int = 8

    def seconds(self, frames: int) -> float:
        return (self.base + self.per_frame * frames) * TICK


class Known(BatchClock):
    """Knows every time beforehand; what is not in its table takes no time, as nobody knows."""

    def __init__(self, costs: dict[tuple[str, str], Cost]) -> None:
        super().__init__()
        self.costs = costs

    def learn(self, endpoint: str, **costs: Cost) -> None:
        self.costs.update({(endpoint, variant): cost for variant, cost in costs.items()})
        self.version += 1

    def predict(self, endpoint: str, work: Work, frames: int) -> float | None:
        cost = self.costs.get((endpoint, work.variant))
        return cost and cost.seconds(frames)

    def typical(self, endpoint: str, work: Work, frames: int) -> float:
        return self.predict(endpoint, work, frames) or 0.0

    def record(self, endpoint: str, work: Work, frames: int, seconds: float, now: float) -> None:
        pass

    def forget(self, endpoint: str) -> None:
        pass

    def known(self) -> Iterator[tuple[str, Work, int, float]]:
        return iter(())


class Frame(Job):
    """A job with a slot of its lane, and a number to tell it by."""

    __slots__ = ("fate", "number", "slot")

    _numbers = itertools.count()

    def __init__(
        self,
        variants: Sequence[str],
        arrival: float,
        deadline: float,
        *,
        lane: Hashable = 0,
        slot: int = 0,
        priority: Priority = Priority.LIVE,
        client: Hashable = None,
    ) -> None:
        choices = [Work(variant, lane) for variant in variants]
        super().__init__(choices, arrival, deadline, priority=priority, client=client)
        self.number = next(self._numbers)
        self.slot = slot
        self.fate = "new"

    def __repr__(self) -> str:
        return f"<{self.number}: {self.fate} {'/'.join(work.variant for work in self.choices)}>"

    def lie_after(self, other: Job) -> bool:
        return self.slot == cast("Frame", other).slot + 1


def frames_of(jobs: Sequence[Job]) -> list[Frame]:
    return cast("list[Frame]", list(jobs))


def frames_in(batch: Batch) -> list[Frame]:
    return frames_of(batch.jobs)


def ticks(count: float) -> float:
    """Seconds."""
    return count * TICK


class Film(Frame):
    """An offline frame."""

    __slots__ = ()

    def __init__(self, variant: str = "net", slot: int = 0, deadline: float = NEVER) -> None:
        super().__init__([variant], 0.0, deadline, slot=slot, priority=Priority.OFFLINE)


class Scene:
    """A planner that knows all times, the frames it was offered and the batches it began."""

    def __init__(self, **fleet: dict[str, Cost]) -> None:
        self.clock = Known({})
        self.planner = Planner(self.clock)
        self.verdicts: dict[Job, Verdict] = {}
        self.begun: list[Batch] = []
        self.dropped: list[Job] = []
        self.slots = 0
        for name, costs in fleet.items():
            self.join(name, costs)

    def join(self, name: str, costs: dict[str, Cost], executors: int = 1, at: float = 0) -> list[Job]:
        self.clock.learn(name, **costs)
        return self.planner.join(name, executors, {variant: cost.most for variant, cost in costs.items()}, ticks(at))

    def offer(self, budget: float = NEVER, at: float = 0, ladder: str = "net", **more: Any) -> Frame:
        """A live frame of the lane's next slot."""
        frame = Frame(ladder.split(), ticks(at), ticks(at + budget), slot=self.slots, **more)
        self.put(frame, at)
        return frame

    def film(self, at: float = 0, variant: str = "net", deadline: float = NEVER) -> Film:
        film = Film(variant, self.slots, ticks(deadline))
        self.put(film, at)
        return film

    def put(self, frame: Frame, at: float) -> None:
        self.verdicts[frame] = self.planner.offer(frame, ticks(at))
        self.slots += self.verdicts[frame].accepted

    def start(self, at: float = 0) -> list[list[Frame]]:
        """Begin what begins; the frames of each batch."""
        begun, dropped = self.planner.start(ticks(at))
        self.begun += begun
        self.dropped += dropped
        return [frames_in(batch) for batch in begun]

    def finish(self, at: float, number: int = 0) -> list[list[Frame]]:
        """The batch that has run for longest, or the next but so many, is done, and what can begins."""
        self.planner.finish(self.begun.pop(number), ticks(at))
        return self.start(at)

    def fail(self, at: float, **more: Any) -> list[Job]:
        return self.planner.fail(self.begun.pop(0), ticks(at), **more)

    def accepted(self, *frames: Frame) -> list[bool]:
        return [self.verdicts[frame].accepted for frame in frames]

    def finish_of(self, frame: Frame) -> float:
        return self.verdicts[frame].finish / TICK
