"""The report: what the traces say together, the page, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.charts import Bar, Span, lines, timeline
from benchmark.scheduling.simulator import ANSWERED, DROPPED, REFUSED, Result
from benchmark.scheduling.traces import NOISY, OVERLOAD, PREDICTABLE, Trace

OURS = "ours"
LABELS: Mapping[str, str] = {
    OURS: "ours",
    "fifo": "FIFO",
    "triton": "Triton's batcher",
    "clipper": "Clipper",
}
"""Of the policies, in the tables' order."""
COLUMNS = (
    "goodput %", "late %", "refused %", "quality", "fairness", "live p50 ms", "offline by end %", "batch", "frames/s",
)  # fmt: skip
_FATES = {ANSWERED: "in time", DROPPED: "late or dropped", REFUSED: "refused"}
_LESSER = "in time, by a lesser network"


def summary(traces: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the scheduler is held to. Late rates are those of the worst of the traces at 0.9 times the capacity."""
    ours = {trace["name"]: trace["policies"][OURS] for trace in traces}
    overload = next(trace for trace in traces if trace["name"] == OVERLOAD)
    return {
        "late_rate_predictable_0.9x": max(ours[name]["late"] or 0.0 for name in PREDICTABLE),
        "late_rate_noisy_0.9x": max(ours[name]["late"] or 0.0 for name in NOISY),
        "goodput_vs_bound_2x": ours[OVERLOAD]["goodput"] / overload["bound"],
        "beats_every_baseline": all(trace["beats_every_baseline"] for trace in traces),
    }


def beats(policies: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether no baseline has more goodput than ours."""
    return all(row["goodput"] <= policies[OURS]["goodput"] for row in policies.values())


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of a table, in the order of COLUMNS."""
    return [
        *(_percent(row[name]) for name in ("goodput", "late", "refused")),
        *(_number(row[name]) for name in ("quality", "fairness", "live_p50_ms")),
        _percent(row["offline_by_end"]),
        _number(row["mean_batch"]),
        f"{row['frames_per_wall_s']:,}",
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def markdown(report: Mapping[str, Any], charts: Sequence[str]) -> str:
    """The report as a page; `charts` are the pictures' paths as seen from it: goodput over load, and the timeline."""
    million = report["million_frames"]
    text = [
        "# Scheduling, simulated",
        "",
        f"{report['date']}, seed {report['seed']}, {report['frames']:,} frames a trace (fleet: four times as many).",
        "",
        f"    {report['command']}",
        "",
        "Every policy sees the same arrivals, endpoints and batch times. Loads are multiples of the most frames a",
        "second that the executors can do. Goodput is the share of the offered frames that were answered inside their",
        "deadline (offline frames: before the trace's end); late the share of the accepted that were answered late or",
        "dropped; quality the mean of the answers in time, RUNet's being 1, bicubic's 0; fairness Jain's index of the",
        "clients' answers in time over their max-min fair shares; frames/s is the simulation's speed. No policy can",
        "have more goodput than the bound, even one that knows the future: `benchmark/scheduling/bound.py` says why.",
        "",
        "| summary | value |",
        "|---|---|",
        *(f"| `{name}` | {_shown(value)} |" for name, value in report["summary"].items()),
        f"| a million frames | {million['wall_s']:.0f} s of wall time, {million['cpu_s']:.0f} s of CPU; "
        f"with FIFO instead {million['loop_s']:.0f} s; measured with {million['measured_frames']:,} |",
        "",
        f"![Goodput over load]({charts[0]})",
        "",
        f"![Ours and FIFO in a short burst]({charts[1]})",
    ]
    for trace in report["traces"]:
        text += [
            "",
            f"## {trace['name']}",
            "",
            f"{trace['meaning'][0].upper()}{trace['meaning'][1:]}. Bound: {_percent(trace['bound'])} %. "
            f"{'No' if trace['beats_every_baseline'] else 'A'} baseline has more goodput than ours.",
            "",
            f"| policy | {' | '.join(COLUMNS)} |",
            "|---|" + "---|" * len(COLUMNS),
            *(f"| {LABELS[name]} | {' | '.join(cells(row))} |" for name, row in trace["policies"].items()),
        ]
    return "\n".join(text) + "\n"


def _shown(value: float | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.4f}"


def draw_loads(loads: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A chart of the goodput over the load, by policy, with the bound."""
    series = {
        label: [(row["load"], 100 * row["goodput"][name]) for row in loads]
        for name, label in {**LABELS, "bound": "bound"}.items()
    }
    lines(series, path, title="Poisson, no ladder", x="load, in times the capacity", y="answered in time, % of offered")


def draw_timeline(trace: Trace, results: Mapping[str, Result], path: Path) -> None:
    """A picture of the batches on the executors, and of every frame from its arrival to its deadline."""
    panels: dict[str, tuple[list[Bar], list[Span]]] = {}
    for name, result in results.items():
        in_time = int((result.answered <= trace.judged).sum())
        name = f"{LABELS[name]}: {in_time} of {len(trace.arrivals)} frames in time"
        panels[name] = as_bars(trace, result), as_spans(trace, result)
    title = (
        f"{len(trace.arrivals)} frames within {1000 * trace.end:.0f} ms, {len(trace.ladder)} rungs allowed. "
        "Above: batches on the executors, with their frames; below: the frames"
    )
    where = "frames, from arrival to deadline; dot: the answer, cross: none"
    fates = [_FATES[ANSWERED], _LESSER, _FATES[DROPPED], _FATES[REFUSED]]
    timeline(panels, path, title=title, x="ms", y=where, bars=trace.ladder, spans=fates)


def as_bars(trace: Trace, result: Result) -> list[Bar]:
    """The batches that began, each on one of its endpoint's executors; times in milliseconds."""
    free: dict[str, float] = {
        f"{endpoint.name}.{executor}": 0.0 for endpoint in trace.endpoints for executor in range(endpoint.executors)
    }
    bars: list[Bar] = []
    for run in result.runs:
        name = f"{trace.endpoints[run.endpoint].name}."
        row = next(row for row, until in free.items() if row.startswith(name) and until <= run.began)
        free[row] = run.ends
        bars.append(Bar(row, 1000 * run.began, 1000 * run.ends, run.variant, str(len(run.frames))))
    return bars


def as_spans(trace: Trace, result: Result) -> list[Span]:
    """The frames from arrival to deadline, with the moment of the answer; in milliseconds."""
    judged = trace.judged
    spans: list[Span] = []
    for frame, (arrival, state) in enumerate(zip(trace.arrivals, result.state, strict=True)):
        answered = float(result.answered[frame])
        late = state == ANSWERED and answered > judged[frame]
        done = None if np.isnan(answered) else 1000 * answered
        fate = _FATES[DROPPED if late else int(state)]
        if fate == _FATES[ANSWERED] and result.rung[frame] > 0:
            fate = _LESSER
        spans.append(Span(1000 * float(arrival), 1000 * float(judged[frame]), done, fate))
    return spans
