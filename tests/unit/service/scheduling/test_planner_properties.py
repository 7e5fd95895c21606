"""The planner, against any endpoints, any frames and any order of events.

`Calm` knows all times beforehand and nothing goes wrong, so whatever is promised is kept. In `Stormy` batches fail or
take longer, endpoints leave, come back and change, callers give up; frames may then be dropped, but none is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.scheduling.jobs import Batch, Job, Priority
from service.scheduling.planner import Planner
from tests.unit.service.scheduling.conftest import NEVER, TICK, Cost, Frame, Known, frames_in, frames_of

LIVE_MEMORY_S = 2.0
NAMES = ["a", "b", "c"]
NETWORKS = ["best", "good", "fast"]


class Server(NamedTuple):
    executors: int
    costs: dict[str, Cost]

    @property
    def most(self) -> dict[str, int]:
        return {variant: cost.most for variant, cost in self.costs.items()}


costs = st.builds(Cost, st.integers(0, 60), st.integers(1, 60), st.integers(1, 8))
servers = st.builds(
    Server, st.integers(1, 3), st.dictionaries(st.sampled_from(NETWORKS), costs, min_size=1, max_size=3)
)
ladders = st.lists(st.sampled_from(NETWORKS), min_size=1, max_size=3, unique=True)
budgets = st.one_of(st.integers(1, 600), st.integers(600, 3000), st.just(NEVER)).map(lambda ticks: ticks * TICK)
offers = st.tuples(
    ladders,
    budgets,
    st.sampled_from([Priority.LIVE] * 4 + [Priority.OFFLINE]),
    st.sampled_from(["one", "two", "greedy"]),
    st.integers(0, 1),
)
ticks = st.one_of(st.integers(1, 100), st.integers(1, 4000))


class Calm(RuleBasedStateMachine):
    """A gateway whose Tritons keep their time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.clock = Known({})
        self.planner = Planner(self.clock)
        self.servers: dict[str, Server] = {}
        self.frames: list[Frame] = []
        self.running: dict[Batch, float] = {}
        """When they end."""
        self.refused_by: dict[Frame, set[str]] = {}
        """Endpoints that have failed on a frame."""
        self.slots = [0, 0]
        self.settled = True
        self.could_wait: list[tuple[float, float]] = []
        """When live frames came, and how long each could wait."""

    # -- what happens --------------------------------------------------------------------------------------------------

    @initialize(fleet=st.lists(servers, min_size=1, max_size=3))
    def the_first_join(self, fleet: list[Server]) -> None:
        for name, server in zip(NAMES, fleet, strict=False):
            self.join(name, server)

    @precondition(lambda self: len(self.servers) < len(NAMES))
    @rule(server=servers)
    def another_joins(self, server: Server) -> None:
        self.join(next(name for name in NAMES if name not in self.servers), server)

    @rule(offers=st.lists(offers, min_size=1, max_size=8))
    def frames_come_at_once(self, offers: list[tuple[list[str], float, Priority, str, int]]) -> None:
        for ladder, budget, priority, client, lane in offers:
            self.offer(ladder, budget, priority, client, lane)
        self.settle()

    @rule(offers=st.lists(st.tuples(st.integers(0, 60), offers), min_size=1, max_size=20))
    def frames_come_in_turn(self, offers: list[tuple[int, tuple[list[str], float, Priority, str, int]]]) -> None:
        for pause, offer in offers:
            self.pass_time(self.now + pause * TICK)
            self.offer(*offer)
            self.settle()

    @rule(ticks=ticks)
    def time_passes(self, ticks: int) -> None:
        self.pass_time(self.now + ticks * TICK)

    # -- what is done about it -----------------------------------------------------------------------------------------

    def join(self, name: str, server: Server) -> None:
        self.servers[name] = server
        self.clock.learn(name, **server.costs)
        self.given_up(self.planner.join(name, server.executors, server.most, self.now), "waiting")
        self.settle()

    def offer(self, ladder: list[str], budget: float, priority: Priority, client: str, lane: int) -> None:
        now = self.now
        frame = Frame(ladder, now, now + budget, lane=lane, slot=self.slots[lane], priority=priority, client=client)
        self.frames.append(frame)
        self.refused_by[frame] = set()
        live = priority is Priority.LIVE
        alone = min(map(self.alone, ladder if live else ladder[:1]))
        at_once = live and any(self.may_run(name, [frame], variant) for name in self.idle() for variant in ladder)
        verdict = self.planner.offer(frame, now)
        note(f"{now / TICK:g}: {verdict} for {frame}, {budget / TICK:g} ticks, {priority.name} of {client}")
        if verdict.accepted:
            self.slots[lane] += 1
            self.turn(frame, "new", "waiting")
            assert frame.work in frame.choices
            assert not live or now + self.alone(frame.work.variant) <= verdict.finish <= frame.latest
        else:
            self.turn(frame, "new", "refused")
            assert not at_once, "an idle executor could do it in time"
            assert (verdict.retry_after is None) == (alone == NEVER or alone > budget)
            assert verdict.retry_after is None or verdict.retry_after >= 0
        if live and verdict.retry_after is not None:
            self.could_wait.append((now, budget - alone))
        elif live and frame.batch:
            self.could_wait.append((now, budget - self.clock.typical(frame.batch.endpoint, frame.work, 1)))

    def settle(self) -> None:
        """Begin what begins, and look at all of it."""
        self.settled = False
        begun, dropped = self.planner.start(self.now)
        for batch in begun:
            self.begin(batch)
        for frame in frames_of(dropped):
            self.turn(frame, "waiting", "dropped")
            self.may_be_dropped(frame)
        for batch in begun:
            self.was_next(batch)
        self.nobody_idles()
        wake_at = self.planner.wake_at()
        assert wake_at is None or wake_at > self.now
        self.settled = True

    def begin(self, batch: Batch) -> None:
        note(f"{self.now / TICK:g}: {batch.endpoint} begins {batch.work.variant} of {batch.jobs}")
        frames = frames_in(batch)
        server = self.servers[batch.endpoint]
        assert batch.executor not in {each.executor for each in self.running}
        self.running[batch] = self.now + self.takes(batch)
        assert len(self.running_at(batch.endpoint)) <= server.executors
        assert 1 <= len(frames) <= server.costs[batch.work.variant].most
        for before, after in pairwise(frames):
            assert after.lie_after(before)
        assert len({frame.priority for frame in frames}) == 1
        for frame in frames:
            self.turn(frame, "waiting", "running")
            assert frame.work == batch.work
            assert frame.work in frame.choices
            assert batch.endpoint not in self.refused_by[frame]
            if frame.priority is Priority.LIVE:
                assert self.now + self.clock.typical(batch.endpoint, batch.work, len(frames)) <= frame.latest

    def was_next(self, batch: Batch) -> None:
        """Nothing more urgent waits behind it; if it is offline, nothing live, and it hinders nobody."""
        live = batch.jobs[0].priority is Priority.LIVE
        for other in self.waiting_batches():
            assert other.executor is not batch.executor or (live and batch.due <= other.due)
        if not live:
            seconds = self.clock.typical(batch.endpoint, batch.work, len(batch.jobs))
            of_late = [wait for came, wait in self.could_wait if self.now < came + LIVE_MEMORY_S]
            assert seconds <= min(of_late, default=NEVER)

    def nobody_idles(self) -> None:
        """No executor is idle while a batch waits that it may run."""
        idle = self.idle()
        offline = [job for job in self.planner.waiting if job.priority is Priority.OFFLINE]
        for name in idle:
            for batch in self.waiting_batches():
                assert not self.may_run(name, batch.jobs, batch.work.variant)
            if all(came + LIVE_MEMORY_S <= self.now for came, _ in self.could_wait):
                assert not any(self.may_run(name, [job], job.work.variant) for job in offline)

    def pass_time(self, until: float) -> None:
        while (moment := self.next_event()) <= until:
            self.now = max(self.now, moment)
            over = [batch for batch, end in self.running.items() if end <= self.now][:1]
            for batch in over:
                self.finish(batch)
            self.settle()
        self.now = until

    def finish(self, batch: Batch) -> None:
        del self.running[batch]
        self.planner.finish(batch, self.now)
        for frame in frames_in(batch):
            self.turn(frame, "running", "answered")
            self.may_be_late(frame)

    def given_up(self, jobs: list[Job], was: str) -> None:
        for frame in frames_of(jobs):
            self.turn(frame, was, "returned")

    def turn(self, frame: Frame, was: str, becomes: str) -> None:
        assert frame.fate == was, f"{frame} is {becomes}"
        frame.fate = becomes

    # -- what may be ---------------------------------------------------------------------------------------------------

    def takes(self, batch: Batch) -> float:
        return self.clock.typical(batch.endpoint, batch.work, len(batch.jobs))

    def may_be_dropped(self, frame: Frame) -> None:
        assert frame.priority is Priority.OFFLINE, "what is promised is kept"

    def may_be_late(self, frame: Frame) -> None:
        assert frame.priority is Priority.OFFLINE or self.now <= frame.latest

    # -- what is so ----------------------------------------------------------------------------------------------------

    def next_event(self) -> float:
        wake_at = self.planner.wake_at()
        return min(*self.running.values(), NEVER, NEVER if wake_at is None else wake_at)

    def alone(self, variant: str) -> float:
        """What a frame takes where it is done fastest."""
        costs = [server.costs[variant] for server in self.servers.values() if variant in server.costs]
        return min((cost.seconds(1) for cost in costs), default=NEVER)

    def running_at(self, name: str) -> list[Batch]:
        return [each for each in self.running if each.endpoint == name and not (each.executor and each.executor.gone)]

    def idle(self) -> list[str]:
        """Endpoints that have an executor for which nothing runs or waits."""
        at_work = {each.executor for each in [*self.running, *self.waiting_batches()] if each.executor}
        busy = [executor.endpoint.name for executor in at_work if not executor.gone]
        return [name for name, server in self.servers.items() if busy.count(name) < server.executors]

    def may_run(self, name: str, jobs: list[Job], variant: str) -> bool:
        cost = self.servers[name].costs.get(variant)
        if cost is None or len(jobs) > cost.most or any(name in self.refused_by[each] for each in frames_of(jobs)):
            return False
        return self.now + cost.seconds(len(jobs)) <= min(job.latest for job in jobs)

    def waiting_batches(self) -> Iterator[Batch]:
        """Live ones."""
        return iter({job.batch: None for job in self.planner.waiting if job.batch and job.priority is Priority.LIVE})

    @invariant()
    def every_frame_has_one_fate(self) -> None:
        waiting = frames_of(list(self.planner.waiting))
        assert len(set(waiting)) == len(waiting)
        assert set(waiting) == {frame for frame in self.frames if frame.fate == "waiting"}
        running = [frame for batch in self.running for frame in frames_in(batch)]
        assert len(set(running)) == len(running)
        assert set(running) == {frame for frame in self.frames if frame.fate == "running"}

    def teardown(self) -> None:
        if not self.settled:
            return  # it has failed already
        while self.running or self.planner.wake_at() is not None:
            self.pass_time(self.next_event())
        left = [frame for frame in self.frames if frame.fate in {"new", "waiting", "running"}]
        assert not left, "in the end nobody waits"


class Stormy(Calm):
    """A gateway whose Tritons do as they like."""

    hurry = 1.0

    @rule(factor=st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]))
    def batches_take_longer_or_less(self, factor: float) -> None:
        self.hurry = factor

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0), elsewhere=st.sampled_from([True, True, True, False]))
    def a_batch_fails(self, which: int, elsewhere: bool) -> None:
        batch = list(self.running)[which % len(self.running)]
        note(f"{self.now / TICK:g}: {batch.endpoint} fails on {batch.jobs}")
        del self.running[batch]
        frames = frames_in(batch)
        for frame in frames:
            self.turn(frame, "running", "waiting")
            self.refused_by[frame].add(batch.endpoint)
        lost = self.planner.fail(batch, self.now, elsewhere=lambda job: elsewhere)
        assert set(lost) <= set(frames) if elsewhere else lost == frames
        self.given_up(lost, "waiting")
        self.settle()

    @precondition(lambda self: self.servers)
    @rule(which=st.integers(0))
    def an_endpoint_leaves(self, which: int) -> None:
        name = list(self.servers)[which % len(self.servers)]
        note(f"{self.now / TICK:g}: {name} leaves")
        del self.servers[name]
        self.given_up(self.planner.leave(name, self.now), "waiting")
        assert sorted(self.planner.endpoints) == sorted(self.servers)
        self.settle()

    @precondition(lambda self: self.servers)
    @rule(which=st.integers(0), server=servers)
    def an_endpoint_changes(self, which: int, server: Server) -> None:
        name = list(self.servers)[which % len(self.servers)]
        note(f"{self.now / TICK:g}: {name} changes")
        self.join(name, server)

    @precondition(lambda self: self.frames)
    @rule(which=st.integers(0))
    def a_caller_gives_up(self, which: int) -> None:
        frame = self.frames[which % len(self.frames)]
        note(f"{self.now / TICK:g}: {frame} is withdrawn")
        waited = frame.fate == "waiting"
        assert self.planner.withdraw(frame) == waited
        if waited:
            self.turn(frame, "waiting", "withdrawn")
        self.settle()

    def takes(self, batch: Batch) -> float:
        return super().takes(batch) * self.hurry

    def may_be_dropped(self, frame: Frame) -> None:
        """What was foreseen is no longer so."""

    def may_be_late(self, frame: Frame) -> None:
        """The batch took longer than anybody knew."""


# What fails is made as small as can be, which takes its time.
TestCalm = pytest.mark.timeout(600)(Calm.TestCase)
TestCalm.settings = settings(
    max_examples=60, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStormy = pytest.mark.timeout(600)(Stormy.TestCase)
TestStormy.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
