"""`python -m benchmark overload`: starts the service, finds its capacity, offers multiples of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmark.overload.load import Outcome, Wanted, capacity, offer, refusals
from benchmark.overload.report import BEGIN, END, draw, row, summary, table
from benchmark.runtime import Device, device_name
from benchmark.serving.report import write_page
from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import ROOT, LocalStack
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from upscale_client import AsyncUpscaleClient

LADDER = ("runet", "bicubic_plus_plus", "bicubic")
SCALE = 3
LOADS = (0.5, 0.9, 1.2, 2.0, 5.0)
_CLIENTS = 8
_INFLIGHT = 64


@dataclass(frozen=True)
class Effort:
    """How much is measured; times in seconds."""

    passes: int
    seconds: float
    """Of each load in one pass."""


QUICK = Effort(passes=1, seconds=5)
FULL = Effort(passes=3, seconds=10)


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer frames: about a minute and a half.")] = False,
    width: Annotated[int, typer.Option(min=16, help="Of the frames; they are enlarged three times.")] = 320,
    height: Annotated[int, typer.Option(min=16, help="Of the frames.")] = 180,
    budget_ms: Annotated[float, typer.Option(min=1, help="Of each frame.")] = 120.0,
    output: Annotated[Path, typer.Option(help="Where .json and .svg go: a path without suffix.")] = ROOT
    / "docs"
    / "benchmarks"
    / "overload",
    page: Annotated[Path, typer.Option(help="The Markdown page whose table is written.")] = ROOT
    / "docs"
    / "scheduling.md",
) -> None:
    """What becomes of frames when more are offered than the service can enlarge, at several times its capacity."""
    effort = QUICK if quick else FULL
    report: dict[str, Any] = {
        "device": device_name(Device.CPU),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python -m benchmark overload"
        + (" --quick" if quick else "")
        + (f" --width {width} --height {height} --budget-ms {budget_ms:g}"),
        "models": "The real Triton with one instance on one core; client and gateway share the other one.",
        "width": width,
        "height": height,
        "scale": SCALE,
        "budget_ms": budget_ms,
        **asyncio.run(_measure(_frame(width, height), budget_ms / 1000, effort)),
    }
    report["summary"] = summary(report["loads"], budget_ms / 1000)
    output.parent.mkdir(parents=True, exist_ok=True)
    json_file, chart = (output.with_name(output.name + suffix) for suffix in (".json", ".svg"))
    json_file.write_text(json.dumps(report, indent=2) + "\n")
    draw(report, chart)
    write_page(page, table(report, os.path.relpath(chart, page.parent)), (BEGIN, END))
    if as_json:
        print(json.dumps(report, indent=2))
        return
    _show(report)
    Console().print(f"written: {json_file}, {chart}, {page}")


def _frame(width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(ROOT / "samples" / "nuthatch_4k.jpg") as image:
        return np.asarray(image.convert("RGB").resize((width, height)))


async def _measure(frame: np.ndarray[Any, np.dtype[np.uint8]], budget_s: float, effort: Effort) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upscale-benchmark-")))
        for model in LADDER:
            export_variant(get(model), SCALE, "clean", repository=folder / "models", weights=WEIGHTS_DIR)
        settings: dict[str, object] = {
            "port": free_port(),
            "metrics_port": free_port(),
            "log_level": "WARNING",
            "default_profile": "clean",
            "max_inflight_frames": _INFLIGHT,
            "max_output_pixels": frame.shape[0] * frame.shape[1] * SCALE**2,
            "warm_up_s": 20,
        }
        triton = EmbeddedTriton(folder / "models", engine="openvino", threads=1)
        local = stack.enter_context(LocalStack(triton, settings, folder / "gateway.log"))
        clients = [AsyncUpscaleClient(local.gateway.address) for _ in range(_CLIENTS)]
        try:
            plain = Wanted(frame, SCALE, budget_s)
            most = await capacity(clients, plain, _INFLIGHT // 2, effort.seconds)
            kinds = [*((load, plain) for load in LOADS), *((load, replace(plain, step_down=True)) for load in LOADS)]
            outcomes = [Outcome() for _ in kinds]
            # In turns, so that a noisy machine is noisy for all of them.
            turns = [(turn, number) for turn in range(effort.passes) for number in range(len(kinds))]
            metrics = f"http://127.0.0.1:{local.gateway.metrics_port}/metrics"
            for turn, number in track(turns, "offering frames", console=Console(stderr=True)):
                load, wanted = kinds[number]
                before = refusals(metrics)
                outcome = await offer(clients, wanted, load * most, effort.seconds, seed=turn)
                outcome.refusals = refusals(metrics) - before
                outcomes[number].add(outcome)
            loads = [row(load, outcome, wanted) for (load, wanted), outcome in zip(kinds, outcomes, strict=True)]
            return {"capacity_per_s": round(most, 2), "loads": loads}
        finally:
            await asyncio.gather(*(client.close() for client in clients))


def _show(report: Mapping[str, Any]) -> None:
    console = Console()
    shown = Table(
        "load", "ladder", "offered", "in time", "late", "dropped", "refused", "in time/s", "p99 ms", "in 5 ms"
    )
    for each in report["loads"]:
        shown.add_row(
            f"{each['load']:g}x",
            "yes" if each["step_down"] else "-",
            *(str(each[name]) for name in ("offered", "in_time", "late", "dropped", "refused")),
            f"{each['goodput_per_s']:.1f}",
            "-" if each["accepted"]["p99_ms"] is None else f"{each['accepted']['p99_ms']:.1f}",
            "-" if each["refused_within_5ms"] is None else f"{100 * each['refused_within_5ms']:.1f} %",
        )
    console.print(shown)
    for name, value in report["summary"].items():
        console.print(f"{name}: {value}")
