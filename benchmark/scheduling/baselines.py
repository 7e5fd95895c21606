"""What others do, each with the trace's first rung alone and no admission: every frame is accepted.

All share one queue over the endpoints, which is the best that can be done for them: no frame waits at one endpoint
while another is idle. A batch in flight that fails goes back to the queue's front.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from benchmark.scheduling.simulator import Run, World

TRITON_DELAY_S = 2e-3
"""Triton's max_queue_delay: how long the oldest frame waits for a full batch."""


class _Idle:
    """The endpoints with an idle executor: who has been idle for longest is first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._variant = world.trace.ladder[0]
        self._most = [endpoint.costs[self._variant].most for endpoint in world.trace.endpoints]
        self._idle: deque[int] = deque()

    def join(self, endpoint: int, now: float) -> None:
        self._idle.extend([endpoint] * self._world.trace.endpoints[endpoint].executors)
        self._dispatch(now)

    def leave(self, endpoint: int, now: float) -> None:
        self._idle = deque(other for other in self._idle if other != endpoint)
        self._dispatch(now)

    def finished(self, run: Run, now: float) -> None:
        self._idle.append(run.endpoint)
        self._dispatch(now)

    def woken(self, now: float) -> None:
        self._dispatch(now)

    def _dispatch(self, now: float) -> None:
        raise NotImplementedError


class Fifo(_Idle):
    """First come, first served: an idle executor takes what waits, up to its maximum. Nothing is dropped."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._lines: list[deque[int]] = [deque() for _ in range(max(world.layouts, default=0) + 1)]

    def arrive(self, frame: int, now: float) -> None:
        """Queue it."""
        self._lines[self._world.layouts[frame]].append(frame)
        if self._idle:
            self._dispatch(now)

    def failed(self, run: Run, now: float) -> None:
        """Back to the front."""
        self._lines[self._world.layouts[run.frames[0]]].extendleft(reversed(run.frames))

    def _dispatch(self, now: float) -> None:
        idle = self._idle
        while idle and (line := self._ready(self._most[idle[0]], now)):
            endpoint = idle.popleft()
            frames = [line.popleft() for _ in range(min(len(line), self._most[endpoint]))]
            self._world.begin(endpoint, self._variant, frames)

    def _ready(self, most: int, now: float) -> deque[int] | None:
        """The line to serve next: that of the oldest frame."""
        return min((line for line in self._lines if line), key=lambda line: line[0], default=None)


class TritonBatcher(Fifo):
    """Triton's dynamic batcher: a full batch begins at once, less when its oldest frame has waited for the delay."""

    def __init__(self, world: World, delay: float = TRITON_DELAY_S) -> None:
        super().__init__(world)
        self._delay = delay

    def arrive(self, frame: int, now: float) -> None:
        """Queue it; the first of an empty queue sets the clock."""
        line = self._lines[self._world.layouts[frame]]
        if not line:
            self._world.wake(now + self._delay)
        line.append(frame)
        if self._idle:
            self._dispatch(now)

    def failed(self, run: Run, now: float) -> None:
        """Back to the front, with the time that it has waited already."""
        super().failed(run, now)
        self._world.wake(max(now, self._world.arrivals[run.frames[0]] + self._delay))

    def _dispatch(self, now: float) -> None:
        before = [line[0] if line else -1 for line in self._lines]
        super()._dispatch(now)
        for line, first in zip(self._lines, before, strict=True):
            # A new oldest frame has its own moment; one that has passed is caught when an executor is idle.
            if line and line[0] != first and (due := self._world.arrivals[line[0]] + self._delay) > now:
                self._world.wake(due)

    def _ready(self, most: int, now: float) -> deque[int] | None:
        arrivals = self._world.arrivals
        ready = (line for line in self._lines if line and (len(line) >= most or arrivals[line[0]] + self._delay <= now))
        return min(ready, key=lambda line: line[0], default=None)


class Clipper(_Idle):
    """Clipper (Crankshaw et al., NSDI 2017): each endpoint finds its batch size by AIMD.

    The size grows by one frame after a batch whose time met the objective (the smallest budget in the trace), and
    shrinks by 10 % after one that did not. As in Clipper's source, the queue goes by deadline, and what waited past its
    deadline is dropped.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        budgets = world.trace.budgets
        self._objective = float(budgets.min()) if len(budgets) else 0.0
        self._sizes = [1.0 for _ in world.trace.endpoints]
        self._queues: list[list[tuple[float, int]]] = [[] for _ in range(max(world.layouts, default=0) + 1)]

    def arrive(self, frame: int, now: float) -> None:
        """Queue it by its deadline."""
        heappush(self._queues[self._world.layouts[frame]], (self._world.deadlines[frame], frame))
        if self._idle:
            self._dispatch(now)

    def finished(self, run: Run, now: float) -> None:
        """Let the batch size learn."""
        size = self._sizes[run.endpoint]
        if run.ends - run.began <= self._objective:
            self._sizes[run.endpoint] = min(size + 1, self._most[run.endpoint])
        else:
            self._sizes[run.endpoint] = max(1.0, 0.9 * size)
        super().finished(run, now)

    def failed(self, run: Run, now: float) -> None:
        """Back into the queue."""
        queue = self._queues[self._world.layouts[run.frames[0]]]
        queue += [(self._world.deadlines[frame], frame) for frame in run.frames]
        heapify(queue)

    def size(self, endpoint: int) -> int:
        """Frames of the endpoint's next batch, if as many wait."""
        return int(self._sizes[endpoint])

    def _dispatch(self, now: float) -> None:
        while self._idle:
            for queue in self._queues:
                while queue and queue[0][0] <= now:
                    self._world.drop(heappop(queue)[1])
            queue = min((queue for queue in self._queues if queue), key=lambda queue: queue[0], default=None)
            if queue is None:
                return
            endpoint = self._idle.popleft()
            frames = [heappop(queue)[1] for _ in range(min(len(queue), self.size(endpoint)))]
            self._world.begin(endpoint, self._variant, frames)
