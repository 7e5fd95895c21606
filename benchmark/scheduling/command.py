"""`python -m benchmark scheduling`: every policy on every trace, the pictures, and the planner's own speed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmark.runtime import Device, device_name
from benchmark.scheduling.baselines import Clipper, Fifo, TritonBatcher
from benchmark.scheduling.bound import most_in_time
from benchmark.scheduling.measures import measure
from benchmark.scheduling.ours import Ours
from benchmark.scheduling.report import (
    COLUMNS,
    LABELS,
    OURS,
    beats,
    cells,
    draw_loads,
    draw_timeline,
    markdown,
    summary,
)
from benchmark.scheduling.simulator import Policy, World
from benchmark.scheduling.traces import TRACES, Trace, burst, poisson
from deploy.local import ROOT

POLICIES: Mapping[str, Callable[[World], Policy]] = {
    OURS: Ours,
    "fifo": Fifo,
    "triton": TritonBatcher,
    "clipper": Clipper,
}
_LOADS = (0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0)
_MILLION = 1_000_000


@dataclass(frozen=True)
class Effort:
    """How many frames are simulated."""

    frames: int
    """In each trace."""
    load_frames: int
    """At each load of the chart."""
    million: int
    """To measure the simulation's speed with."""


QUICK = Effort(frames=15_000, load_frames=4_000, million=50_000)
FULL = Effort(frames=60_000, load_frames=20_000, million=_MILLION)


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer frames: about a minute.")] = False,
    frames: Annotated[int, typer.Option(min=0, help="In each trace; 0: as many as --quick says, or not.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the traces: the same one, the same numbers.")] = 1,
    output: Annotated[Path, typer.Option(help="The folder where scheduling.json, .md and .svg go.")] = ROOT
    / "docs"
    / "benchmarks",
) -> None:
    """The gateway's planner beside FIFO, Triton's batcher, Clipper and a bound, in simulated time."""
    effort = QUICK if quick else FULL
    if frames:
        effort = Effort(frames, max(1, frames // 2), effort.million)
    report: dict[str, Any] = {
        "device": device_name(Device.CPU),
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python -m benchmark scheduling"
        + (" --quick" if quick else "")
        + (f" --frames {frames}" if frames else "")
        + f" --seed {seed}",
        "seed": seed,
        "frames": effort.frames,
        **simulate(effort, seed),
    }
    files = write(report, seed, output)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    _show(report)
    Console().print(f"written: {', '.join(str(file) for file in files)}")


def simulate(effort: Effort, seed: int) -> dict[str, Any]:
    """The rows of every trace and load, and the summary."""
    traces = [_compare(make(effort.frames, seed)) for make in track(TRACES, "traces", console=_progress())]
    loads: list[dict[str, Any]] = []
    for load in track(_LOADS, "loads", console=_progress()):
        row = _compare(poisson(effort.load_frames, seed, load))
        goodput = {name: policy["goodput"] for name, policy in row["policies"].items()}
        loads.append({"load": load, "goodput": {**goodput, "bound": row["bound"]}})
    return {
        "summary": summary(traces),
        "million_frames": _million(poisson(effort.million, seed, 0.9)),
        "traces": traces,
        "loads": loads,
    }


def _compare(trace: Trace) -> dict[str, Any]:
    policies = {name: measure(trace, World(trace, policy).run()) for name, policy in POLICIES.items()}
    return {
        "name": trace.name,
        "meaning": trace.meaning,
        "frames": len(trace.arrivals),
        "bound": min(1.0, most_in_time(trace) / len(trace.arrivals)),
        "beats_every_baseline": beats(policies),
        "policies": policies,
    }


def _million(trace: Trace) -> dict[str, Any]:
    """Seconds for a million frames with the planner, and with FIFO, which costs next to nothing itself."""
    scale = _MILLION / len(trace.arrivals)
    spent: dict[str, float] = {}
    for name, wall, cpu in track(
        ((OURS, "wall_s", "cpu_s"), ("fifo", "loop_s", "loop_cpu_s")), "a million frames", console=_progress()
    ):
        world = World(trace, POLICIES[name])
        began = time.process_time()
        spent[wall] = round(scale * world.run().wall_s, 2)
        spent[cpu] = round(scale * (time.process_time() - began), 2)
    return {"trace": trace.name, "measured_frames": len(trace.arrivals), **spent}


def write(report: Mapping[str, Any], seed: int, output: Path) -> Sequence[Path]:
    """Write the report's files; returns their paths."""
    output.mkdir(parents=True, exist_ok=True)
    json_file, page = output / "scheduling.json", output / "scheduling.md"
    loads, gantt = output / "scheduling-loads.svg", output / "scheduling-timeline.svg"
    json_file.write_text(json.dumps(report, indent=2) + "\n")
    page.write_text(markdown(report, [loads.name, gantt.name]))
    draw_loads(report["loads"], loads)
    trace = burst(seed)
    draw_timeline(trace, {name: World(trace, POLICIES[name], keep=True).run() for name in (OURS, "fifo")}, gantt)
    return json_file, page, loads, gantt


def _progress() -> Console:
    # What is asked for goes to standard output.
    return Console(stderr=True)


def _show(report: Mapping[str, Any]) -> None:
    console = Console()
    for trace in report["traces"]:
        sign = "no baseline has more goodput" if trace["beats_every_baseline"] else "a baseline has more goodput"
        title = f"{trace['name']}: {trace['meaning']}; bound {100 * trace['bound']:.2f} %; {sign}"
        shown = Table("policy", *COLUMNS, title=title)
        for name, row in trace["policies"].items():
            shown.add_row(LABELS[name], *cells(row))
        console.print(shown)
    shown = Table("summary", "value")
    for name, value in report["summary"].items():
        shown.add_row(name, str(value) if isinstance(value, bool) else f"{value:.4f}")
    million = report["million_frames"]
    shown.add_row("a million frames", f"{million['wall_s']:.1f} s ({million['cpu_s']:.1f} s of CPU)")
    console.print(shown)
