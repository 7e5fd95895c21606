"""`python -m benchmark sizing`: what a fleet for so many streams needs, by what was measured.

By default from the reports in docs/benchmarks, into docs/operations.md; with `--address` from a running service, which
times its networks on its own devices before it uses them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmark.errors import BenchmarkError
from benchmark.serving.report import write_page
from deploy.local import ROOT
from upscale_client import Served, UpscaleClient, UpscaleError

PAGE = ROOT / "docs" / "operations.md"
REPORTS = ROOT / "docs" / "benchmarks"
MARKERS = ("<!-- begin: python -m benchmark sizing -->", "<!-- end: python -m benchmark sizing -->")
LOAD = 0.7
"""The part of what instances and cores can do that a fleet is planned for; the rest is for bursts and failures."""
_SHOWN = {"bicubic", "bicubic_plus_plus", "repnet", "runet"}
_SIZES = {2: "1920x1080", 3: "1280x720"}


@dataclass(frozen=True)
class Measured:
    """What one instance of a network does."""

    device: str
    what: str
    frames_per_s: float
    command: str


def needed(streams: int, fps: float, per_s: float) -> int:
    """How many that do `per_s` frames a second each it takes for the streams."""
    return math.ceil(streams * fps / (LOAD * per_s) - 1e-9)


def from_reports(folder: Path) -> Iterator[Measured]:
    """What the reports of `benchmark runtime`, `benchmark chain` and `benchmark overload` say."""
    for path in sorted(folder.glob("runtime-*.json")):
        report = json.loads(path.read_text())
        for row in report["rows"]:
            if row["model"] in _SHOWN and row["ms"]:
                what = f"{row['model']} x{row['scale']}, {_SIZES[row['scale']]}, {report['precision']}, batch 1"
                yield Measured(report["device"], what, 1000 / min(row["ms"].values()), _short(report["command"]))
    for path in sorted(folder.glob("chain-*.json")):
        report = json.loads(path.read_text())
        best: dict[tuple[str, int], float] = {}
        for row in report["rows"]:
            if row["way"] == "gateway_shm":
                key = row["model"], row["instances"]
                best[key] = max(best.get(key, 0.0), row["frames_per_s"] / row["instances"])
        for (model, instances), per_s in sorted(best.items()):
            frames = report["networks"][model].partition(" to ")[0]
            what = f"{model} {frames}, through the service, {instances} on the device"
            yield Measured(report["device"], what, per_s, _short(report["command"]))
    for path in sorted(folder.glob("overload*.json")):
        report = json.loads(path.read_text())
        what = f"runet x{report['scale']}, {report['width']}x{report['height']}, through the service"
        device = f"one core of {report['device'].rpartition(' of ')[2]}"
        yield Measured(device, what, report["capacity_per_s"], _short(report["command"]))


def from_service(served: Iterable[Served], address: str) -> Iterator[Measured]:
    """What a running service has timed: for each network and size the batch by which it does most."""
    for variant in served:
        best: dict[tuple[str, int, int], tuple[float, int]] = {}
        for time in variant.batch_times:
            key = (time.endpoint, time.width, time.height)
            best[key] = max(best.get(key, (0.0, 0)), (time.frames / time.predicted_s, time.frames))
        for (endpoint, width, height), (per_s, frames) in sorted(best.items()):
            yield Measured(endpoint, f"{variant.name}, {width}x{height}, batches of {frames}", per_s, address)


def gateway_ways(folder: Path) -> Sequence[Mapping[str, Any]]:
    """How clients may send frames, with the gateway's CPU time for each, by the report of `benchmark serving`."""
    report = json.loads((folder / "serving.json").read_text())
    return [way for way in report["ways"] if way["model"] == "identity" and way["cpu_s_per_frame"] and _is_ours(way)]


def markdown(folder: Path, streams: int, fps: float) -> str:
    """Both tables."""
    those = "1 stream" if streams == 1 else f"{streams} streams"
    lines = [
        f"For {those} of {fps:g} frames a second, at a load of {LOAD:g}:",
        "",
        "| device | network and frames | frames/s of an instance | instances | measured by |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {each.device} | {each.what} | {each.frames_per_s:.1f} | {needed(streams, fps, each.frames_per_s)} "
        f"| `{each.command}` |"
        for each in from_reports(folder)
    ]
    report = json.loads((folder / "serving.json").read_text())
    lines += [
        "",
        f"The gateway alone, 1080p to 4K, on {report['device']} (`{_short(report['command'])}`):",
        "",
        "| frames come by | CPU ms for a frame | cores |",
        "|---|---|---|",
    ]
    lines += [
        f"| {way['label'].removeprefix('gateway, ')} | {1000 * way['cpu_s_per_frame']:.1f} "
        f"| {needed(streams, fps, 1 / way['cpu_s_per_frame'])} |"
        for way in gateway_ways(folder)
    ]
    return "\n".join(lines)


def command(
    streams: Annotated[int, typer.Option(min=1, help="That are open at once.")] = 1,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames a second of each.")] = 60.0,
    address: Annotated[str, typer.Option(help="Of a running service whose own times are to be used.")] = "",
    reports: Annotated[Path, typer.Option(help="Folder with the reports of the other commands.")] = REPORTS,
    page: Annotated[Path | None, typer.Option(help="The Markdown page whose tables are written.")] = None,
) -> None:
    """How many instances and cores so many streams need, by what was measured."""
    if address:
        _show(_asked(address), streams, fps)
        return
    try:
        text = markdown(reports, streams, fps)
    except (OSError, KeyError, ValueError) as error:
        raise BenchmarkError(f"--reports {reports}: {error!r}") from None
    if page is None:
        print(text)
        return
    write_page(page, text, MARKERS)
    Console().print(f"written: {page}")


def _asked(address: str) -> list[Measured]:
    try:
        with UpscaleClient(address, timeout_s=10) as client:
            measured = list(from_service(client.list_models(), address))
    except UpscaleError as error:
        raise BenchmarkError(f"--address {address}: {error}") from None
    if not measured:
        raise BenchmarkError(f"--address {address}: it has timed no batch yet; warm_up_s is how long it may take to")
    return measured


def _show(measured: Iterable[Measured], streams: int, fps: float) -> None:
    table = Table("Triton", "network and frames", "frames/s", "instances", title=f"{streams} x {fps:g} frames/s")
    for each in measured:
        instances = str(needed(streams, fps, each.frames_per_s))
        table.add_row(each.device, each.what, f"{each.frames_per_s:.1f}", instances)
    Console().print(table)


def _is_ours(way: Mapping[str, Any]) -> bool:
    return way["way"].startswith("gateway_")


def _short(command: str) -> str:
    """The command without its options."""
    return " ".join(command.removeprefix("python -m ").split()[:2])
