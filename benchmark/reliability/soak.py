"""`python -m benchmark soak`: a constant mixed load for a long time; memory and descriptors flat, latency steady."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.progress import Progress
from scipy.stats import theilslopes

from benchmark.charts import over_time
from benchmark.errors import BenchmarkError
from benchmark.reliability.load import Load, record
from benchmark.reliability.service import Service, make_repository, started
from benchmark.runtime import Device, device_name
from benchmark.serving.report import write_page
from deploy.embedded import EmbeddedTriton
from deploy.local import ROOT

_MARKERS = ("<!-- begin: python -m benchmark soak -->", "<!-- end: python -m benchmark soak -->")
_SAMPLES = 240
_WARM_SHARE = 0.2
"""Of the time, before anything is held against anything: pools and caches fill."""
MEMORY_MAY_GROW = 0.01
"""Of itself, over the time after the warm-up, by the trend."""
_MANY = 4
"""Descriptors, threads and tasks may be so many more: a call may be open in one sample and not in another."""
_LATENCY_MAY_GROW = 1.5
"""The second half's median over the first's: the machine is not ours alone."""


@dataclass(frozen=True)
class Sample:
    """The service at a moment."""

    at_s: float
    memory_bytes: int
    """Of the gateway's process, resident, frames' shared memory included."""
    triton_memory_bytes: int
    descriptors: int
    threads: int
    tasks: int
    answered: int
    latency_ms: float | None
    """The median since the last sample."""


def command(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    output: Annotated[Path, typer.Option(help="Where .json and .svg go: a path without suffix.")] = ROOT
    / "docs"
    / "benchmarks"
    / "soak",
    page: Annotated[Path, typer.Option(help="The Markdown page whose section is written.")] = ROOT
    / "docs"
    / "reliability.md",
) -> None:
    """Whether the service is after a long time what it was in the beginning."""
    with tempfile.TemporaryDirectory(prefix="upscale-benchmark-") as folder:
        samples, load = asyncio.run(_measure(Path(folder), 60 * minutes))
    figures = judge(samples)
    findings = [*figures.pop("findings"), *load.tally.wrong, *load.tally.lost]
    report: dict[str, Any] = {
        "device": device_name(Device.CPU),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"python -m benchmark soak --minutes {minutes:g}",
        "frames": load.tally.sent,
        "answered": load.tally.right,
        "failed": dict(sorted(load.tally.failed.items())),
        "wrong": len(load.tally.wrong),
        "lost": len(load.tally.lost),
        **figures,
        "findings": findings,
        "samples": [asdict(sample) for sample in samples],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    json_file, chart = (output.with_name(output.name + suffix) for suffix in (".json", ".svg"))
    json_file.write_text(json.dumps(report, indent=1) + "\n")
    _draw(samples, chart)
    text = _told(report)
    write_page(page, f"{text}\n\n![Memory and latency over the time]({os.path.relpath(chart, page.parent)})", _MARKERS)
    print(json.dumps(report, indent=1) if as_json else text)
    Console(stderr=True).print(f"written: {json_file}, {chart}, {page}")
    if findings:
        raise BenchmarkError(f"{len(findings)} findings, the first: {findings[0]}")


async def _measure(folder: Path, seconds: float) -> tuple[list[Sample], Load]:
    repository = await asyncio.to_thread(make_repository, folder / "models")
    with EmbeddedTriton(repository) as triton, started(triton, folder) as service:
        load = Load(service.address, await record(service.address))
        running = asyncio.create_task(load.run())
        samples: list[Sample] = []
        began = time.monotonic()
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("soaking", total=seconds)
            while (at_s := time.monotonic() - began) < seconds:
                await asyncio.sleep(seconds / _SAMPLES)
                samples.append(await asyncio.to_thread(_sample, service, load, at_s))
                progress.update(bar, completed=at_s)
                if running.done():
                    break
        load.stop()
        await running
        return samples, load


def _sample(service: Service, load: Load, at_s: float) -> Sample:
    held = service.held()
    gateway, triton = psutil.Process(service.gateway.pid), psutil.Process(service.triton.pid)
    recent = [took for _, took in load.tally.seconds]
    # What is counted is not needed any more: else it would be our memory that grows.
    load.tally.seconds.clear()
    return Sample(
        at_s=round(at_s, 2),
        memory_bytes=gateway.memory_info().rss,
        triton_memory_bytes=sum(each.memory_info().rss for each in (triton, *triton.children(recursive=True))),
        descriptors=held.descriptors,
        threads=held.threads,
        tasks=held.tasks,
        answered=load.tally.right,
        latency_ms=round(1000 * float(np.median(recent)), 3) if recent else None,
    )


def judge(samples: Sequence[Sample]) -> dict[str, Any]:
    """How the samples after the warm-up develop, and what is wrong with that."""
    later = samples[round(_WARM_SHARE * len(samples)) :]
    times = [sample.at_s for sample in later]
    memory = [sample.memory_bytes for sample in later]
    # The median of the slopes between all pairs: a single spike does not tilt it.
    slope = float(cast("float", theilslopes(memory, times)[0]))
    growth = slope * (times[-1] - times[0]) / float(np.median(memory))
    findings = [f"memory grows by {growth:.1%}"] if growth > MEMORY_MAY_GROW else []
    half = len(later) // 2
    counts: dict[str, tuple[float, float]] = {}
    for name in ("descriptors", "threads", "tasks"):
        first, second = (
            float(np.median([getattr(sample, name) for sample in part])) for part in (later[:half], later[half:])
        )
        counts[name] = (first, second)
        if second > first + _MANY:
            findings.append(f"{name}: {first:g} at first, {second:g} later")
    first_ms, second_ms = (
        float(np.median([sample.latency_ms for sample in part if sample.latency_ms is not None] or [np.nan]))
        for part in (later[:half], later[half:])
    )
    if not second_ms <= _LATENCY_MAY_GROW * first_ms:
        findings.append(f"a frame takes {first_ms:.1f} ms at first, {second_ms:.1f} ms later")
    return {
        "memory_growth": round(growth, 5),
        "memory_bytes": int(np.median(memory)),
        "counts": counts,
        "latency_ms": (round(first_ms, 2), round(second_ms, 2)),
        "findings": findings,
    }


def _told(report: Mapping[str, Any]) -> str:
    counts = "; ".join(f"{name} {first:g} and {second:g}" for name, (first, second) in report["counts"].items())
    failed = sum(report["failed"].values())
    return "\n".join(
        [
            f"`{report['command']}` on {report['device']}, {report['date']}: {report['frames']} frames, "
            f"{report['wrong']} wrong, {report['lost']} lost, {failed} failed.",
            "",
            f"- The gateway's memory ({report['memory_bytes'] / 2**20:.0f} MiB) grew by "
            f"{report['memory_growth']:+.2%} over the last {1 - _WARM_SHARE:.0%} of the time, by the trend.",
            f"- Median of the first and of the second half: {counts}; "
            f"a frame {report['latency_ms'][0]:g} and {report['latency_ms'][1]:g} ms.",
        ]
    )


def _draw(samples: Sequence[Sample], path: Path) -> None:
    series = {
        "memory of the gateway, MiB": [sample.memory_bytes / 2**20 for sample in samples],
        "descriptors": [float(sample.descriptors) for sample in samples],
        "a frame, median, ms": [sample.latency_ms or float("nan") for sample in samples],
    }
    over_time(series, [sample.at_s / 60 for sample in samples], path, title="The service under load", x="minutes")
