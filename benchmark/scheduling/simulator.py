"""The event loop: frames arrive, batches end, endpoints go and come back. All times are in simulated seconds.

A policy is told what happens and says what to do by the world's `begin`, `refuse`, `drop` and `wake`. The world keeps
the rules: no frame twice, no batch larger than allowed, of one layout, and never more of them than executors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import BenchmarkError
from benchmark.scheduling.traces import Times, Trace

OPEN, RUNNING, ANSWERED, REFUSED, DROPPED = range(5)
"""What is with a frame; at the end it is one of the last three."""

_FINISH, _WAKE, _LEAVE, _JOIN = range(4)


class PolicyError(BenchmarkError):
    """A policy did what no executor can do."""


class Run:
    """A batch on an executor."""

    __slots__ = ("began", "endpoint", "ends", "failed", "frames", "tag", "variant")

    def __init__(self, endpoint: int, variant: str, frames: list[int], began: float, ends: float, tag: object) -> None:
        self.endpoint = endpoint
        self.variant = variant
        self.frames = frames
        self.began = began
        self.ends = ends
        self.tag = tag
        """Whatever the policy gave `begin`."""
        self.failed = False


class Policy(Protocol):
    """Decides; frames and endpoints are known by their index in the trace."""

    def join(self, endpoint: int, now: float) -> None:
        """Its executors are idle."""
        ...

    def leave(self, endpoint: int, now: float) -> None:
        """It is away; `failed` was called for each of its batches before."""
        ...

    def arrive(self, frame: int, now: float) -> None:
        """A frame wants to be inferred."""
        ...

    def finished(self, run: Run, now: float) -> None:
        """A batch is answered and its executor idle."""
        ...

    def failed(self, run: Run, now: float) -> None:
        """A batch in flight is lost; its frames may be begun again or dropped. `leave` follows at once."""
        ...

    def woken(self, now: float) -> None:
        """As asked by `World.wake`."""
        ...


@dataclass(frozen=True)
class Result:
    """What became of every frame, by its index."""

    state: NDArray[np.uint8]
    """ANSWERED, REFUSED or DROPPED."""
    answered: Times
    """When; NaN where there was no answer."""
    rung: NDArray[np.int64]
    """The answer's place in the ladder; -1 where there was none."""
    batches: int
    """That were answered."""
    wall_s: float
    runs: Sequence[Run]
    """Every batch that began, if they were to be kept."""


class World:
    """One simulation of one policy on one trace.

    Args:
        trace: what happens.
        policy: makes the policy, which may read the public attributes.
        keep: have every batch in the result, for a picture.
    """

    __slots__ = (
        "_answered",
        "_batches",
        "_events",
        "_factors",
        "_heap",
        "_idle",
        "_keep",
        "_now",
        "_policy",
        "_rung",
        "_rungs",
        "_running",
        "_runs",
        "_seconds",
        "_state",
        "arrivals",
        "clients",
        "deadlines",
        "layouts",
        "trace",
    )

    def __init__(self, trace: Trace, policy: Callable[[World], Policy], *, keep: bool = False) -> None:
        self.trace = trace
        # Lists: reading one number of an array costs several times as much.
        self.arrivals: list[float] = trace.arrivals.tolist()
        self.deadlines: list[float] = trace.deadlines.tolist()
        self.layouts: list[int] = trace.layouts.tolist()
        self.clients: list[int] = trace.clients.tolist()
        self._now = 0.0
        self._heap: list[tuple[float, int, int, Run | int]] = []
        self._events = 0
        self._idle = [0 for _ in trace.endpoints]
        self._running: list[set[Run]] = [set() for _ in trace.endpoints]
        self._rungs = {variant: rung for rung, variant in enumerate(trace.ladder)}
        self._seconds = [
            {
                variant: [0.0, *(cost.seconds(frames) for frames in range(1, cost.most + 1))]
                for variant, cost in endpoint.costs.items()
            }
            for endpoint in trace.endpoints
        ]
        self._factors: list[float] = trace.factors.tolist()
        self._batches = 0
        self._state = bytearray(len(self.arrivals))
        self._answered = [float("nan")] * len(self.arrivals)
        self._rung = [-1] * len(self.arrivals)
        self._keep = keep
        self._runs: list[Run] = []
        self._policy = policy(self)

    def begin(self, endpoint: int, variant: str, frames: list[int], tag: object = None) -> None:
        """Start a batch now."""
        state, layouts = self._state, self.layouts
        if self._idle[endpoint] < 1:
            raise PolicyError(f"endpoint {endpoint} has no idle executor at {self._now:.6f} s")
        seconds = self._seconds[endpoint][variant]
        if not 0 < len(frames) < len(seconds) or variant not in self._rungs:
            raise PolicyError(f"a batch of {len(frames)} frames of {variant} is not allowed")
        layout = layouts[frames[0]]
        for frame in frames:
            if state[frame] != OPEN or layouts[frame] != layout or self.arrivals[frame] > self._now:
                raise PolicyError(f"frame {frame} cannot be in a batch at {self._now:.6f} s")
            state[frame] = RUNNING
        self._idle[endpoint] -= 1
        factor = self._factors[self._batches % len(self._factors)]
        self._batches += 1
        ends = self._now + factor * seconds[len(frames)]
        run = Run(endpoint, variant, frames, self._now, ends, tag)
        self._running[endpoint].add(run)
        self._events += 1
        heappush(self._heap, (ends, self._events, _FINISH, run))
        if self._keep:
            self._runs.append(run)

    def refuse(self, frame: int) -> None:
        """Do not accept a frame that arrives now."""
        self._close(frame, REFUSED)

    def drop(self, frame: int) -> None:
        """Give up a frame that was accepted."""
        self._close(frame, DROPPED)

    def wake(self, moment: float) -> None:
        """Have the policy called then."""
        self._events += 1
        heappush(self._heap, (moment, self._events, _WAKE, 0))

    def run(self) -> Result:
        """Simulate until nothing is left to happen. Frames that then still wait count as dropped."""
        began = time.perf_counter()
        policy, heap, arrivals = self._policy, self._heap, self.arrivals
        answered = 0
        for outage in self.trace.outages:
            for moment, kind in ((outage.begin, _LEAVE), (outage.end, _JOIN)):
                self._events += 1
                heappush(heap, (moment, self._events, kind, outage.endpoint))
        for number, endpoint in enumerate(self.trace.endpoints):
            self._idle[number] = endpoint.executors
            policy.join(number, 0.0)
        arrive, finished, count = policy.arrive, policy.finished, len(arrivals)
        frame, coming = 0, arrivals[0] if arrivals else float("inf")
        while True:
            if heap and heap[0][0] <= coming:
                now, _, kind, what = heappop(heap)
                self._now = now
                if isinstance(what, Run):
                    if what.failed:
                        continue
                    answered += 1
                    self._answer(what, now)
                    finished(what, now)
                elif kind == _WAKE:
                    policy.woken(now)
                elif kind == _LEAVE:
                    self._lose(what, now)
                else:
                    self._idle[what] = self.trace.endpoints[what].executors
                    policy.join(what, now)
            elif frame < count:
                self._now = coming
                arrive(frame, coming)
                frame += 1
                coming = arrivals[frame] if frame < count else float("inf")
            else:
                break
        state = np.frombuffer(bytes(self._state), np.uint8).copy()
        state[state == OPEN] = DROPPED
        wall_s = time.perf_counter() - began
        return Result(state, np.array(self._answered), np.array(self._rung), answered, wall_s, self._runs)

    def _answer(self, run: Run, now: float) -> None:
        self._running[run.endpoint].discard(run)
        self._idle[run.endpoint] += 1
        rung, state, answered, rungs = self._rungs[run.variant], self._state, self._answered, self._rung
        for frame in run.frames:
            state[frame] = ANSWERED
            answered[frame] = now
            rungs[frame] = rung

    def _lose(self, endpoint: int, now: float) -> None:
        lost = sorted(self._running[endpoint], key=lambda run: run.frames)
        self._running[endpoint].clear()
        self._idle[endpoint] = 0
        for run in lost:
            run.failed, run.ends = True, now
            for frame in run.frames:
                self._state[frame] = OPEN
        for run in lost:
            self._policy.failed(run, now)
        self._policy.leave(endpoint, now)

    def _close(self, frame: int, state: int) -> None:
        if self._state[frame] != OPEN:
            raise PolicyError(f"frame {frame} cannot be refused or dropped at {self._now:.6f} s")
        self._state[frame] = state
