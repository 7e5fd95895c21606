"""What the loads showed, as numbers, a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.charts import lines
from benchmark.overload.load import Outcome, Wanted
from benchmark.serving.measure import percentiles_ms

BEGIN, END = "<!-- overload: begin -->", "<!-- overload: end -->"


def row(load: float, outcome: Outcome, wanted: Wanted) -> dict[str, Any]:
    """What is said of one load. A frame is in time if the service had sent its answer within the budget."""
    in_time = sum(seconds <= wanted.budget_s for seconds in outcome.service_s)
    late = len(outcome.service_s) - in_time
    accepted = len(outcome.service_s) + outcome.dropped
    return {
        "load": load,
        "step_down": wanted.step_down,
        "offered": outcome.offered,
        "in_time": in_time,
        "late": late,
        "dropped": outcome.dropped,
        "refused": len(outcome.refused_s),
        "failed": outcome.failed,
        "goodput_per_s": round(in_time / outcome.elapsed_s, 2),
        "share_in_time": round(in_time / max(1, outcome.offered), 4),
        "late_of_accepted": round((late + outcome.dropped) / max(1, accepted), 5),
        "accepted": percentiles_ms(outcome.service_s),
        "accepted_by_client": percentiles_ms(outcome.answered_s),
        "refusal_by_client": percentiles_ms(outcome.refused_s),
        "refused_within_5ms": round(told["0.005"] / told["+Inf"], 4) if (told := outcome.refusals)["+Inf"] else None,
        "models": dict(sorted(outcome.models.items())),
    }


def summary(rows: Sequence[Mapping[str, Any]], budget_s: float) -> dict[str, Any]:
    """The numbers that are held against what is wanted."""
    plain = {each["load"]: each for each in rows if not each["step_down"]}
    stepping = {each["load"]: each for each in rows if each["step_down"]}
    p99 = [each["accepted"]["p99_ms"] for each in plain.values() if each["accepted"]["p99_ms"] is not None]
    refused = [each for each in plain.values() if each["refused_within_5ms"] is not None]
    all_refused = max(1, sum(each["refused"] for each in refused))
    return {
        "goodput_2x_vs_0.9x": round(plain[2.0]["goodput_per_s"] / plain[0.9]["goodput_per_s"], 3),
        "goodput_5x_vs_0.9x": round(plain[5.0]["goodput_per_s"] / plain[0.9]["goodput_per_s"], 3),
        "worst_p99_vs_budget": round(max(p99) / (1000 * budget_s), 3),
        "refused_within_5ms": round(
            sum(each["refused_within_5ms"] * each["refused"] for each in refused) / all_refused, 4
        ),
        "ladder_in_time_2x": stepping[2.0]["share_in_time"],
    }


def table(report: Mapping[str, Any], chart: str) -> str:
    """The report in Markdown; `chart` is where its picture is, as seen from the page."""
    size = f"{report['width']}x{report['height']}"
    found = report["summary"]
    text = [
        f"{report['date']}, {report['device']}. {report['models']} Frames of {size} at x{report['scale']}, a budget of "
        f"{report['budget_ms']:.1f} ms; capacity {report['capacity_per_s']:.0f} frames/s.",
        "",
        f"    {report['command']}",
        "",
        f"![Answers in time over the load]({chart})",
        "",
        "| load | ladder | offered | in time | late | dropped | refused | in time/s | p50 ms | p99 ms | in 5 ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in report["loads"]:
        counts = " | ".join(str(each[name]) for name in ("offered", "in_time", "late", "dropped", "refused"))
        times = f"{_ms(each['accepted']['p50_ms'])} | {_ms(each['accepted']['p99_ms'])}"
        ladder = _models(each) if each["step_down"] else "-"
        text.append(
            f"| {each['load']:g}x | {ladder} | {counts} | {each['goodput_per_s']:.1f} | {times} | {_share(each)} |"
        )
    text += [
        "",
        f"Goodput at 2x and 5x, in times of that at 0.9x: {found['goodput_2x_vs_0.9x']:.2f} and "
        f"{found['goodput_5x_vs_0.9x']:.2f}. With the ladder at 2x, {100 * found['ladder_in_time_2x']:.1f} % of all "
        "frames were answered in time.",
        "All times are the service's own, from a frame's arrival; `in 5 ms` is the share of the refusals that were",
        "told within that. Dropped frames were accepted and then given up, for they would have been late. The",
        "JSON file has the times by the client's clock, too.",
    ]
    return "\n".join(text) + "\n"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Answers in time over the load."""
    of: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for each in report["loads"]:
        of[each["step_down"]].append((each["load"], each["goodput_per_s"] / report["capacity_per_s"]))
    loads = sorted({load for points in of.values() for load, _ in points})
    series = {
        "one network": sorted(of[False]),
        "with the ladder": sorted(of[True]),
        "what is offered, up to capacity": [(load, min(load, 1.0)) for load in loads],
    }
    lines(
        {name: points for name, points in series.items() if points},
        path,
        title=f"Real service, {report['device']}, {report['date']}",
        x="frames offered, in multiples of the capacity",
        y="frames answered in time, in multiples of the capacity",
    )


def _models(row: Mapping[str, Any]) -> str:
    answered = max(1, sum(row["models"].values()))
    return ", ".join(f"{model} {100 * count / answered:.0f} %" for model, count in row["models"].items())


def _share(row: Mapping[str, Any]) -> str:
    share = row["refused_within_5ms"]
    return "-" if share is None else f"{100 * share:.1f} %"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
