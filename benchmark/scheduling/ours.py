"""The gateway's own planner, driven by simulated events."""

from __future__ import annotations

from typing import cast

from benchmark.scheduling.simulator import PolicyError, Run, World
from service.scheduling.clock import BatchClock
from service.scheduling.jobs import Batch, Job, Priority, Work
from service.scheduling.planner import Planner


class _Frame(Job):
    """A job that knows its frame."""

    __slots__ = ("number", "slot")

    number: int
    slot: int
    """Of its lane; a frame that is refused uses up none."""

    def lie_after(self, other: Job) -> bool:
        """Whether it takes the very next slot; in the lane that slots are taken from in turn."""
        return self.slot == cast("_Frame", other).slot + 1


class Ours:
    """`service.planner.Planner`, as the gateway drives it.

    Every layout has a lane, and every frame that arrives takes the lane's next slot. The clock begins knowing nothing,
    as after a cold start.

    Args:
        world: what the planner plans for.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._planner = Planner(BatchClock())
        trace = world.trace
        self._numbers = {endpoint.name: number for number, endpoint in enumerate(trace.endpoints)}
        lanes = max(world.layouts, default=0) + 1
        self._choices = [[Work(variant, lane) for variant in trace.ladder] for lane in range(lanes)]
        self._slots = [0] * lanes
        self._wakes_at: float | None = None
        self._offline: list[bool] = trace.offline.tolist()

    def join(self, endpoint: int, now: float) -> None:
        """Tell the planner."""
        trace = self._world.trace
        there = trace.endpoints[endpoint]
        variants = {variant: there.costs[variant].most for variant in trace.ladder if variant in there.costs}
        self._drop(self._planner.join(there.name, there.executors, variants, now))
        self._start(now)

    def leave(self, endpoint: int, now: float) -> None:
        """Tell the planner; what it finds no other place for is dropped."""
        self._drop(self._planner.leave(self._world.trace.endpoints[endpoint].name, now))
        self._start(now)

    def arrive(self, frame: int, now: float) -> None:
        """Offer the frame."""
        world = self._world
        layout = world.layouts[frame]
        slot = self._slots[layout]
        job = _Frame(
            self._choices[layout],
            now,
            world.deadlines[frame],
            priority=Priority.OFFLINE if self._offline[frame] else Priority.LIVE,
            client=world.clients[frame],
        )
        job.number = frame
        job.slot = slot
        accepted = self._planner.offer(job, now).accepted
        if accepted:
            self._slots[layout] = slot + 1
        else:
            world.refuse(frame)
        self._start(now)

    def finished(self, run: Run, now: float) -> None:
        """Tell the planner."""
        self._planner.finish(cast("Batch", run.tag), now)
        self._start(now)

    def failed(self, run: Run, now: float) -> None:
        """Tell the planner; the loss of the endpoint follows, so nothing is begun yet."""
        self._drop(self._planner.fail(cast("Batch", run.tag), now))

    def woken(self, now: float) -> None:
        """Let the planner begin what it will."""
        self._start(now)

    def _start(self, now: float) -> None:
        batches, dropped = self._planner.start(now)
        if dropped:
            self._drop(dropped)
        for batch in batches:
            frames: list[int] = []
            slots: list[int] = []
            for job in cast("list[_Frame]", batch.jobs):
                frames.append(job.number)
                slots.append(job.slot)
            if max(slots) - min(slots) >= len(slots):
                raise PolicyError(f"the slots {slots} of a batch are not neighbours at {now:.6f} s")
            self._world.begin(self._numbers[batch.endpoint], batch.work.variant, frames, batch)
        moment = self._planner.wake_at()
        if moment is not None and moment != self._wakes_at:
            self._wakes_at = moment
            self._world.wake(max(moment, now))

    def _drop(self, jobs: list[Job]) -> None:
        for job in cast("list[_Frame]", jobs):
            self._world.drop(job.number)
