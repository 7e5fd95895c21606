"""The gateway's own planner, driven by simulated events."""

from __future__ import annotations

from itertools import cycle
from typing import cast

from benchmark.scheduling.simulator import PolicyError, Run, World
from benchmark.scheduling.traces import Endpoint
from service.scheduling.clock import BatchClock
from service.scheduling.jobs import Batch, Job, Priority, Work
from service.scheduling.planner import Planner

WARM_UP_RUNS = 2
"""Of every network at every number of frames."""


class _Room:
    """Slots of a lane that lie side by side, for one batch to grow into."""

    __slots__ = ("most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 1


class _Frame(Job):
    """A job that knows its frame."""

    __slots__ = ("number", "room", "slot")

    number: int
    room: _Room | None
    slot: int
    """Of its room, if it has one yet; a frame that is refused takes none."""

    def lie_after(self, other: Job) -> bool:
        """Whether it lies in the next slot, or takes that now."""
        before = cast("_Frame", other)
        room = before.room
        assert room is not None
        if self.room is None and room.taken < room.most and before.slot + 1 == room.taken:
            room.taken += 1
            self.room, self.slot = room, before.slot + 1
            return True
        return self.room is room and self.slot == before.slot + 1

    def settle(self, most: int) -> None:
        """Have a slot, with room for so many frames, if it has none yet."""
        if self.room is None:
            self.room, self.slot = _Room(most), 0


class Ours:
    """`service.scheduling.planner.Planner`, as the gateway drives it.

    As there, a frame that joins a batch takes the slot after the last one's, one that begins a batch takes a slot with
    room for a full batch behind it, one that is refused takes none, and one that is replanned keeps its own. (The
    gateway's lanes end somewhere, these do not: what is in the gateway at once is bounded by `max_inflight_frames`.)

    The gateway warms up before it serves: when an endpoint joins, each of its networks is measured at 1, 2, 4, ...
    frames, each a few times. So the clock knows that much here too, with the trace's noise.

    Args:
        world: what the planner plans for.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._clock = BatchClock()
        self._planner = Planner(self._clock)
        trace = world.trace
        self._numbers = {endpoint.name: number for number, endpoint in enumerate(trace.endpoints)}
        layouts = max(world.layouts, default=0) + 1
        self._choices = [[Work(variant, layout) for variant in trace.ladder] for layout in range(layouts)]
        self._most = {
            variant: max(endpoint.costs[variant].most for endpoint in trace.endpoints if variant in endpoint.costs)
            for variant in trace.ladder
        }
        self._wakes_at: float | None = None
        self._offline: list[bool] = trace.offline.tolist()
        # Any of the trace's factors, but not in step with those that its batches take.
        self._noise = cycle(reversed(trace.factors.tolist()))

    def join(self, endpoint: int, now: float) -> None:
        """Tell the planner."""
        trace = self._world.trace
        there = trace.endpoints[endpoint]
        self._warm_up(there, now)
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
        job = _Frame(
            self._choices[layout],
            now,
            world.deadlines[frame],
            priority=Priority.OFFLINE if self._offline[frame] else Priority.LIVE,
            client=world.clients[frame],
        )
        job.number = frame
        job.room = None
        if self._planner.offer(job, now).accepted:
            job.settle(self._most[job.work.variant])
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

    def _warm_up(self, there: Endpoint, now: float) -> None:
        for works in self._choices:
            for work in works:
                if (cost := there.costs.get(work.variant)) is None:
                    continue
                for frames in sorted({*_powers_of_two(cost.most), cost.most}):
                    for _ in range(WARM_UP_RUNS):
                        self._clock.record(there.name, work, frames, next(self._noise) * cost.seconds(frames), now)

    def _start(self, now: float) -> None:
        batches, dropped = self._planner.start(now)
        if dropped:
            self._drop(dropped)
        for batch in batches:
            frames: list[int] = []
            last: _Frame | None = None
            for job in cast("list[_Frame]", batch.jobs):
                if last is not None and not (job.room is last.room and job.slot == last.slot + 1):
                    raise PolicyError(f"frames {last.number} and {job.number} are not neighbours at {now:.6f} s")
                frames.append(job.number)
                last = job
            self._world.begin(self._numbers[batch.endpoint], batch.work.variant, frames, batch)
        moment = self._planner.wake_at()
        if moment is not None and moment != self._wakes_at:
            self._wakes_at = moment
            self._world.wake(max(moment, now))

    def _drop(self, jobs: list[Job]) -> None:
        for job in cast("list[_Frame]", jobs):
            self._world.drop(job.number)


def _powers_of_two(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length())]
