"""The scheduling simulator: its rules, its baselines, its bound and what it counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from benchmark.scheduling.baselines import Clipper, Fifo, TritonBatcher
from benchmark.scheduling.bound import most_in_time, work_until
from benchmark.scheduling.command import POLICIES, Effort, simulate, write
from benchmark.scheduling.measures import fair_shares, jain, measure
from benchmark.scheduling.ours import Ours
from benchmark.scheduling.report import LABELS, as_bars, as_spans, beats, summary
from benchmark.scheduling.simulator import ANSWERED, DROPPED, OPEN, REFUSED, Policy, PolicyError, Result, Run, World
from benchmark.scheduling.traces import LADDER, QUALITY, TRACES, Cost, Endpoint, Outage, Trace, burst, capacity, poisson

SLOW = Cost(1.0, 1.0, most=4)
"""A batch of n takes 1 + n seconds."""


def trace(arrivals: Sequence[float], budgets: float | Sequence[float] = 100.0, **more: Any) -> Trace:
    count = len(arrivals)
    given: dict[str, Any] = {
        "endpoints": [Endpoint("gpu", 1, {"runet": SLOW})],
        "clients": np.zeros(count, np.int64),
        "layouts": np.zeros(count, np.int64),
        **more,
    }
    return Trace("test", "a test", arrivals=np.array(arrivals), budgets=np.broadcast_to(budgets, count), **given)


def batches(result: Result) -> list[tuple[float, list[int]]]:
    return [(run.began, run.frames) for run in result.runs]


def simulated(given: Trace, policy: Callable[[World], Policy]) -> Result:
    return World(given, policy, keep=True).run()


# -- every policy on every trace ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("make", TRACES)
def test_every_frame_has_one_fate_and_nobody_beats_the_bound(make: Callable[[int, int], Trace], name: str) -> None:
    given = make(600, 3)
    result = World(given, POLICIES[name]).run()
    row = measure(given, result)
    assert set(np.unique(result.state)) <= {ANSWERED, REFUSED, DROPPED}
    assert sum(row["fates"].values()) == len(given.arrivals)
    assert np.isnan(result.answered).sum() == (result.state != ANSWERED).sum()
    assert row["fates"]["in_time"] <= most_in_time(given) + 1e-6
    assert row["goodput"] > 0


@pytest.mark.parametrize("make", TRACES)
def test_a_seed_is_a_trace(make: Callable[[int, int], Trace]) -> None:
    one, same, other = make(300, 5), make(300, 5), make(300, 6)
    for name in ("arrivals", "budgets", "clients", "layouts", "factors"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.array_equal(one.arrivals, other.arrivals)
    assert (np.diff(one.arrivals) >= 0).all()
    assert one.arrivals[0] >= 0


@pytest.mark.parametrize("name", POLICIES)
def test_a_seed_is_a_result(name: str) -> None:
    results = [World(poisson(500, 2, 1.5, noisy=True), POLICIES[name]).run() for _ in range(2)]
    np.testing.assert_array_equal(results[0].state, results[1].state)
    np.testing.assert_array_equal(results[0].answered, results[1].answered)


@pytest.mark.parametrize("make", TRACES)
def test_traces_have_the_load_they_say(make: Callable[[int, int], Trace]) -> None:
    given = make(20_000, 1)
    stated = {"greedy": 0.9 + 20 / 64, "failing": 0.7, "fleet": 1.1, "offline": 1.4}
    load = stated.get(given.name) or float(given.name.split("_")[1].removesuffix("x"))
    # Films come 100 frames at once, so there are few of them.
    offered = len(given.arrivals) / given.end / capacity(given.endpoints)
    assert offered == pytest.approx(load, rel=0.1 if given.name == "offline" else 0.03)


# -- baselines on traces made by hand ----------------------------------------------------------------------------------


def test_fifo_takes_what_waits_up_to_the_maximum_and_drops_nothing() -> None:
    result = simulated(trace([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], 1.0), Fifo)
    # The first alone until 2, then four until 7, then the last; hopelessly late as they are.
    assert batches(result) == [(0.0, [0]), (2.0, [1, 2, 3, 4]), (7.0, [5])]
    assert (result.state == ANSWERED).all()
    assert result.answered.tolist() == [2, 7, 7, 7, 7, 9]


def test_fifo_batches_no_two_layouts() -> None:
    result = simulated(trace([0.0, 0.1, 0.2, 0.3], layouts=np.array([0, 1, 0, 1])), Fifo)
    assert batches(result) == [(0.0, [0]), (2.0, [1, 3]), (5.0, [2])]


def test_triton_waits_for_a_full_batch_but_not_longer_than_the_delay() -> None:
    def half_a_second(world: World) -> Policy:
        return TritonBatcher(world, delay=0.5)

    full = simulated(trace([0.0, 0.1, 0.2, 0.3]), half_a_second)
    assert batches(full) == [(0.3, [0, 1, 2, 3])]
    partial = simulated(trace([0.0, 0.1, 0.9]), half_a_second)
    # Two after the delay of the first; the last, overdue by then, when the executor is idle again.
    assert batches(partial) == [(0.5, [0, 1]), (3.5, [2])]
    alone = simulated(trace([0.0, 5.0]), half_a_second)
    assert batches(alone) == [(0.5, [0]), (5.5, [1])]


def test_triton_begins_a_batch_again_that_failed() -> None:
    gone = [Outage(0, 1.0, 4.0)]
    result = simulated(trace([0.0], outages=gone), lambda world: TritonBatcher(world, delay=0.5))
    assert batches(result) == [(0.5, [0]), (4.0, [0])]
    assert result.answered.tolist() == [6.0]


def test_clipper_grows_by_one_and_shrinks_by_a_tenth() -> None:
    sizes: list[int] = []

    class Watched(Clipper):
        def finished(self, run: Run, now: float) -> None:
            super().finished(run, now)
            sizes.append(self.size(0))

    # The objective is 3.5 s: a batch of two meets it, one of three does not; 0.9 * 3 frames are two again.
    result = simulated(trace(np.linspace(0, 1, 12).tolist(), [3.5, *[100.0] * 11]), Watched)
    assert sizes[:5] == [2, 3, 2, 3, 3]
    assert [len(frames) for _, frames in batches(result)][:5] == [1, 2, 3, 2, 3]


def test_clipper_goes_by_deadline_and_drops_what_is_past_it() -> None:
    result = simulated(trace([0.0, 0.1, 0.2, 0.3], [100.0, 90.0, 1.0, 50.0]), Clipper)
    assert batches(result) == [(0.0, [0]), (2.0, [3]), (4.0, [1])]
    assert result.state[2] == DROPPED


@pytest.mark.parametrize("policy", [Fifo, Clipper])
def test_a_batch_in_flight_is_lost_with_its_endpoint(policy: Callable[[World], Policy]) -> None:
    two = [Endpoint("a", 1, {"runet": SLOW}), Endpoint("b", 1, {"runet": SLOW})]
    given = trace([0.0, 0.1, 1.5], endpoints=two, outages=[Outage(0, 1.0, 20.0)])
    result = simulated(given, policy)
    assert (result.state == ANSWERED).all()
    assert [run.endpoint for run in result.runs if run.began > 1] == [1] * (len(result.runs) - 2)
    assert result.answered[0] > 2.1  # after the other endpoint's own batch
    assert result.batches == len(result.runs) - 1


# -- the world's rules -------------------------------------------------------------------------------------------------


class Eager(Fifo):
    """Begins the batches it is told to, at the last arrival, whatever the rules."""

    def __init__(self, world: World, *orders: list[int]) -> None:
        super().__init__(world)
        self._orders = orders

    def arrive(self, frame: int, now: float) -> None:
        if frame == len(self._world.layouts) - 1:
            for order in self._orders:
                self._world.begin(0, "runet", order)


@pytest.mark.parametrize(
    ("orders", "why"),
    [
        ([[0], [1]], "no idle executor"),
        ([[0, 0]], "frame 0"),
        ([[0, 5]], "frame 5"),
        ([[0, 1, 2, 3, 4]], "5 frames"),
        ([[]], "0 frames"),
    ],
)
def test_the_rules_hold_for_every_policy(orders: list[list[int]], why: str) -> None:
    given = trace([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], layouts=np.array([0, 0, 0, 0, 0, 1]))
    with pytest.raises(PolicyError, match=why):
        World(given, lambda world: Eager(world, *orders)).run()


def test_who_is_never_served_is_dropped_in_the_end() -> None:
    result = World(trace([0.0, 1.0]), lambda world: Eager(world, [1])).run()
    assert result.state.tolist() == [DROPPED, ANSWERED]
    assert OPEN not in result.state


# -- our planner's adapter ---------------------------------------------------------------------------------------------


class Recorder:
    """A planner that refuses every second job and begins whatever `plan` makes of the accepted ones."""

    jobs: ClassVar[list[Any]] = []

    def __init__(self, clock: object) -> None:
        self.jobs.clear()

    def join(self, *args: object) -> list[Any]:
        return []

    def wake_at(self) -> None:
        pass

    def offer(self, job: Any, now: float) -> Any:
        self.jobs.append(job)
        return SimpleNamespace(accepted=len(self.jobs) % 2 == 1)

    def start(self, now: float) -> tuple[list[Any], list[Any]]:
        return [], []

    def finish(self, batch: object, now: float) -> None:
        pass


class Reckless(Recorder):
    """Accepts all jobs, and has the first and the third, which are no neighbours, share a batch."""

    def offer(self, job: Any, now: float) -> Any:
        self.jobs.append(job)
        return SimpleNamespace(accepted=True)

    def start(self, now: float) -> tuple[list[Any], list[Any]]:
        chosen = [self.jobs[0], self.jobs[2]] if len(self.jobs) == 3 else []
        self.jobs[3:] = []
        return [SimpleNamespace(endpoint="gpu", work=job.choices[0], jobs=chosen) for job in chosen[:1]], []


def test_every_frame_is_offered_and_what_is_refused_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.scheduling.ours.Planner", Recorder)
    given = trace([0.0, 0.1, 0.2, 0.3, 0.4], [9.0, 9.0, np.inf, 9.0, 9.0], layouts=np.array([0, 1, 0, 0, 1]))
    result = World(given, Ours).run()
    # The second and the fourth are refused.
    assert [job.room is None for job in Recorder.jobs] == [False, True, False, True, False]
    assert [job.priority for job in Recorder.jobs] == [0, 0, 1, 0, 0]
    assert result.state.tolist() == [DROPPED, REFUSED, DROPPED, REFUSED, DROPPED]


def test_a_batch_has_room_to_grow_to_its_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.scheduling.ours.Planner", Recorder)
    World(trace([0.0] * 13), Ours).run()
    accepted = Recorder.jobs[::2]
    first, fresh = accepted[0], Recorder.jobs[1::2]
    # Those that are offered no batch have each a room of their own, and no neighbours.
    assert not accepted[1].lie_after(first)
    line = [first, *fresh[:3]]
    assert [after.lie_after(before) for before, after in pairwise(line)] == [True, True, True]
    assert not fresh[4].lie_after(first)
    assert not fresh[4].lie_after(line[-1])
    assert line[1].lie_after(first)


def test_only_neighbours_may_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmark.scheduling.ours.Planner", Reckless)
    with pytest.raises(PolicyError, match="frames 0 and 2"):
        World(trace([0.0, 0.1, 0.2]), Ours).run()


# -- the bound ---------------------------------------------------------------------------------------------------------


def test_the_bound_is_what_fits() -> None:
    # At most 4 frames in 5 s: 0.8 a second. Ten frames at once with 5 s each: four of them.
    assert most_in_time(trace([0.0] * 10, 5.0)) == pytest.approx(4)
    assert most_in_time(trace([0.0] * 3, 5.0)) == pytest.approx(3)
    # Nobody answers in less than a batch of one takes.
    assert most_in_time(trace([0.0] * 3, 1.9)) == 0


def test_the_bound_credits_parts_so_that_it_stays_one() -> None:
    # EDF that gives whole frames up would waste the server's time on the first; a bound must not.
    given = trace([0.0, 0.5, 0.5, 0.5, 0.5], [2.0, 5.0, 5.0, 5.0, 5.0])
    assert most_in_time(given) == pytest.approx(5.5 * 0.8)


def test_the_bound_knows_of_outages_noise_and_ladders() -> None:
    ten = [0.0] * 10
    assert most_in_time(trace(ten, 5.0, outages=[Outage(0, 1.0, 3.0)])) == pytest.approx(3 * 0.8)
    assert most_in_time(trace(ten, 5.0, factors=np.array([0.8, 1.2]))) == pytest.approx(5)
    rungs = {"runet": SLOW, "bicubic": Cost(0.5, 0.5, most=4)}
    given = trace(ten, 5.0, endpoints=[Endpoint("gpu", 1, rungs)], ladder=("runet", "bicubic"))
    assert most_in_time(given) == pytest.approx(8)


def test_work_stands_still_while_an_endpoint_is_away() -> None:
    given = trace([0.0], outages=[Outage(0, 2.0, 4.0)])
    np.testing.assert_allclose(work_until(given, np.array([1.0, 2.0, 3.0, 4.0, 5.0])), [0.8, 1.6, 1.6, 1.6, 2.4])


# -- what is counted ---------------------------------------------------------------------------------------------------


def test_jain() -> None:
    assert jain(np.array([3.0, 3.0, 3.0])) == pytest.approx(1)
    assert jain(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert jain(np.array([1.0, 2.0, 3.0])) == pytest.approx(36 / 42)
    assert jain(np.zeros(3)) == 1


def test_fair_shares_are_max_min() -> None:
    assert fair_shares(np.array([10.0, 2.0, 10.0]), 12.0).tolist() == [5, 2, 5]
    assert fair_shares(np.array([1.0, 2.0]), 12.0).tolist() == [1, 2]


def test_fates_and_rates() -> None:
    given = trace([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [5.0, 5.0, 5.0, 5.0, np.inf, 5.0], ladder=LADDER)
    given = replace(given, endpoints=[Endpoint("gpu", 1, dict.fromkeys(LADDER, SLOW))])
    nan = float("nan")
    result = Result(
        np.array([ANSWERED, ANSWERED, DROPPED, REFUSED, ANSWERED, ANSWERED], np.uint8),
        np.array([5.0, 5.1, nan, nan, 7.0, 2.0]),
        np.array([0, 0, -1, -1, 2, 1]),
        batches=2,
        wall_s=0.5,
        runs=(),
    )
    row = measure(given, result)
    # The offline frame comes after the trace's end, and in time.
    assert row["fates"] == {"in_time": 3, "late": 1, "dropped": 1, "refused": 1}
    assert row["offline_by_end"] == 0
    assert row["live_p50_ms"] == pytest.approx(3000)
    assert row["goodput"] == pytest.approx(3 / 6)
    assert row["late"] == pytest.approx(2 / 5)
    assert row["quality"] == pytest.approx(sum(QUALITY[variant] for variant in LADDER) / 3)
    assert row["mean_batch"] == 2
    assert row["frames_per_wall_s"] == 12


def test_beaten_by_one_frame_is_beaten() -> None:
    assert beats({"ours": {"goodput": 0.5}, "fifo": {"goodput": 0.5}})
    assert not beats({"ours": {"goodput": 0.5}, "fifo": {"goodput": 0.50001}})


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_report_is_written(tmp_path: Path) -> None:
    report: dict[str, Any] = {
        "date": "2026-01-01",
        "seed": 1,
        "frames": 60,
        "command": "python -m benchmark scheduling",
        **simulate(Effort(frames=60, load_frames=60, million=60), seed=1),
    }
    assert set(report["summary"]) == {
        "late_rate_predictable_0.9x",
        "late_rate_noisy_0.9x",
        "goodput_vs_bound_2x",
        "beats_every_baseline",
    }
    assert summary(report["traces"]) == report["summary"]
    json_file, page, *charts = write(report, 1, tmp_path)
    assert json.loads(json_file.read_text())["summary"] == report["summary"]
    for chart in charts:
        assert chart.read_text().startswith("<?xml")
        assert f"({chart.name})" in page.read_text()
    for label in LABELS.values():
        assert f"| {label} |" in page.read_text()


def test_the_picture_shows_every_frame_and_no_two_batches_at_once() -> None:
    given = burst(1)
    result = World(given, Fifo, keep=True).run()
    bars, spans = as_bars(given, result), as_spans(given, result)
    assert len(spans) == len(given.arrivals)
    assert sum(int(bar.label) for bar in bars) == len(given.arrivals)
    for row in {bar.row for bar in bars}:
        in_turn = sorted((bar.begin, bar.end) for bar in bars if bar.row == row)
        assert all(before[1] <= after[0] for before, after in pairwise(in_turn))
