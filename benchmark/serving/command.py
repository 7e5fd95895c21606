"""`python -m benchmark serving`: starts everything, measures every way, writes the report."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmark.runtime import Device, device_name
from benchmark.serving import peers as others
from benchmark.serving.clients import RemoteClients, clients_of
from benchmark.serving.frames import Sample
from benchmark.serving.measure import Row, Servers, closed_loop, take_turns
from benchmark.serving.photographs import as_nv12, photographs
from benchmark.serving.report import CLIENTS, TARGETS, as_dict, draw, ratios, table, write_page
from benchmark.serving.repository import make_repository
from benchmark.serving.task import IDENTITY, RUNET
from benchmark.serving.ways import (
    Way,
    gateway_ways,
    identity_in_process,
    onnx_in_process,
    peer_way,
    triton_version,
    triton_ways,
)
from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import REPOSITORY, ROOT, LocalStack

# RUNet takes as long by every way as it takes; these are enough to see what the serving adds.
_RUNET_WAYS = {"in_process", "triton_shm", "gateway_unary_rgb24", "gateway_stream_rgb24", "litserve", "bentoml"}
_LOADS = (0.5, 0.9, 1.5, 3.0)
"""Rates of the open loop, in times of what four clients in a closed loop get."""


@dataclass(frozen=True)
class Effort:
    """How much is measured; times in seconds."""

    rounds: Mapping[str, int]
    """Turns of each way, by model."""
    closed_s: Mapping[str, float]
    """Of each way and number of clients in one pass, by model."""
    passes: int
    open_s: float
    """At each rate."""


QUICK = Effort({"identity": 40, "runet": 6}, {"identity": 2, "runet": 3}, passes=1, open_s=4)
FULL = Effort({"identity": 300, "runet": 40}, {"identity": 5, "runet": 10}, passes=3, open_s=20)


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer frames: under five minutes.")] = False,
    peers: Annotated[bool, typer.Option(help="LitServe and BentoML beside it; 'make peers' installs them.")] = True,
    output: Annotated[Path, typer.Option(help="Where .json and .svg go: a path without suffix.")] = ROOT
    / "docs"
    / "benchmarks"
    / "serving",
    page: Annotated[Path, typer.Option(help="The Markdown page whose tables are written.")] = ROOT
    / "docs"
    / "performance.md",
    repository: Annotated[Path, typer.Option(help="A Triton repository with RUNet x2.")] = REPOSITORY,
    keep_buffers: Annotated[
        bool, typer.Option("--keep-buffers", help="Every client keeps large buffers, tritonclient and the peers' too.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=0, help="Turns of each way; 0: as many as --quick says, or not.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="Of each closed and open loop; 0: likewise.")] = 0,
) -> None:
    """What a frame costs through the service, by every way in, beside tritonclient, ONNX Runtime and other servers."""
    if peers:
        others.check_installed()
    effort = QUICK if quick else FULL
    if rounds:
        effort = Effort(dict.fromkeys(effort.rounds, rounds), effort.closed_s, effort.passes, effort.open_s)
    if seconds:
        effort = Effort(effort.rounds, dict.fromkeys(effort.closed_s, seconds), effort.passes, seconds)
    report: dict[str, Any] = {
        "device": device_name(Device.CPU),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python -m benchmark serving"
        + (" --quick" if quick else "")
        + ("" if peers else " --no-peers")
        + (" --keep-buffers" if keep_buffers else "")
        + (f" --rounds {rounds}" if rounds else "")
        + (f" --seconds {seconds:g}" if seconds else ""),
        "effort": asdict(effort),
        **_measure(repository, effort, peers=peers, keep_buffers=keep_buffers),
    }
    report["ratios"] = ratios(report["ways"])
    report["targets"] = {name: {"side": side, "value": value} for name, (side, value) in TARGETS.items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    json_file, chart = (output.with_name(output.name + suffix) for suffix in (".json", ".svg"))
    json_file.write_text(json.dumps(report, indent=2) + "\n")
    draw(report, chart)
    write_page(page, table(report, os.path.relpath(chart, page.parent)))
    if as_json:
        print(json.dumps(report, indent=2))
        return
    _show(report)
    Console().print(f"written: {json_file}, {chart}, {page}")


def _measure(repository: Path, effort: Effort, *, peers: bool, keep_buffers: bool) -> dict[str, Any]:
    """The rows of the closed loops and the open one."""
    threads = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upscale-benchmark-")))
        models = make_repository(folder / "models", repository, ["rgb24", "nv12"])
        network = models / RUNET.variant() / "1" / "model.onnx"
        settings: dict[str, object] = {"port": free_port(), "metrics_port": free_port(), "log_level": "WARNING"}
        # The engine that the others have, too.
        triton = EmbeddedTriton(models, engine="onnxruntime", threads=threads)
        local = stack.enter_context(LocalStack(triton, settings, folder / "gateway.log"))
        servers = {
            "gateway": Servers(local.gateway.pid, behind=(triton.pid,)),
            "triton": Servers(triton.pid),
        }
        ways = [identity_in_process(), onnx_in_process(network, threads)]
        for task in (IDENTITY, RUNET):
            model = task.model
            ways += [*triton_ways(triton.url, task), *gateway_ways(local.gateway.address, task)]
            for peer in others.PEERS if peers else ():
                if model == "runet" and peer.name not in _RUNET_WAYS:
                    continue
                served = "identity" if model == "identity" else str(network)
                pid, port = stack.enter_context(others.serving(peer, served, threads))
                server = f"{peer.name} {model}"
                servers[server] = Servers(pid)
                ways.append(peer_way(peer.name, peer.label, model, server, port))
        rows = [Row(way) for way in ways if way.model == "identity" or way.name in _RUNET_WAYS]
        samples = _samples(onnx_in_process(network, threads))
        # Every way has all its clients from the beginning: none is cold when its turn comes.
        started = track([row.way for row in rows], "clients", console=_progress())
        clients = [
            stack.enter_context(
                clients_of(way, samples[way.model, way.pixel_format], max(CLIENTS), keep_buffers=keep_buffers)
            )
            for way in started
        ]
        for model in ("identity", "runet"):
            chosen = [(row, each) for row, each in zip(rows, clients, strict=True) if row.way.model == model]
            _closed(chosen, servers, effort, model)
        ((row, unary),) = ((row, each) for row, each in zip(rows, clients, strict=True) if _is_unary_identity(row.way))
        loads = []
        for load in track(_LOADS, "open loop", console=_progress()):
            told = unary.open(load * row.frames_per_s(max(CLIENTS)), effort.open_s)
            row.verified += int(told["answered"] or 0)
            loads.append({"load": load, **told})
        versions = _versions(triton_version(triton.url), peers=peers)
        return {"versions": versions, "ways": [as_dict(row) for row in rows], "open_loop": loads}


def _is_unary_identity(way: Way) -> bool:
    return (way.model, way.name) == ("identity", "gateway_unary_rgb24")


def _samples(reference: Way) -> dict[tuple[str, str], list[Sample]]:
    """The frames by model and pixel format; what RUNet makes of them is what the reference does."""
    frames = photographs()
    with reference.connect() as ask:
        answers = ask(frame.pixels for frame in frames)
        known = [frame.answered(answer) for frame, answer in zip(frames, answers, strict=True)]
    return {
        ("identity", "rgb24"): frames,
        ("identity", "nv12"): [as_nv12(frame) for frame in frames],
        ("runet", "rgb24"): known,
    }


def _closed(
    chosen: Sequence[tuple[Row, RemoteClients]], servers: Mapping[str, Servers], effort: Effort, model: str
) -> None:
    rows = [row for row, _ in chosen]
    clients = {row.way.name: each for row, each in chosen}
    for _ in take_turns(rows, clients, rounds=2):
        pass  # warms up: connections, shared memory, engines
    for row in rows:
        row.seconds.clear()
    rounds = effort.rounds[model]
    for _ in track(take_turns(rows, clients, rounds), f"{model}, turns", total=rounds, console=_progress()):
        pass
    slices = [(several, row, each) for _ in range(effort.passes) for several in CLIENTS for row, each in chosen]
    for several, row, each in track(slices, f"{model}, closed loop", console=_progress()):
        closed_loop(row, each, several, effort.closed_s[model], servers.get(row.way.server))


def _progress() -> Console:
    # What is asked for goes to standard output.
    return Console(stderr=True)


def _versions(triton: str, *, peers: bool) -> dict[str, str]:
    packages = ("grpcio", "numpy", "onnxruntime", "tritonclient")
    ours = {package: version(package) for package in packages}
    return {"python": platform.python_version(), "tritonserver": triton, **ours, **(others.versions() if peers else {})}


def _show(report: Mapping[str, Any]) -> None:
    console = Console()
    for model in ("identity", "runet"):
        columns = ("way", "p50 ms", "p95", "p99", "frames/s", "with 4", "CPU ms", "peak RSS MB")
        shown = Table(*columns, title=f"{model}, 1080p to 4K")
        for way in (way for way in report["ways"] if way["model"] == model):
            cpu, memory = way["cpu_s_per_frame"], way["peak_rss_mb"]
            shown.add_row(
                way["label"],
                *(f"{way[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms", "frames_per_s_1", "frames_per_s_4")),
                "-" if cpu is None else f"{1000 * cpu:.1f}",
                "-" if memory is None else f"{memory:.0f}",
            )
        console.print(shown)
    shown = Table("offered/s", "answered/s", "refused", "failed", "p99 ms", title="gateway, RGB24, identity: open loop")
    for row in report["open_loop"]:
        late = "-" if row["p99_ms"] is None else f"{row['p99_ms']:.0f}"
        shown.add_row(
            f"{row['offered_per_s']:.1f}", f"{row['goodput_per_s']:.1f}", str(row["refused"]), str(row["failed"]), late
        )
    console.print(shown)
    shown = Table("ratio", "value", "wanted")
    for name, (side, target) in TARGETS.items():
        value = report["ratios"][name]
        shown.add_row(name, "-" if value is None else f"{value:.3f}", f"{side} {target:g}")
    console.print(shown)
