"""How long every network takes on this device, by the report's protocol (section 2.1).

One random frame at a time, in half precision where the device has it, warmed up, each run timed by itself. Before every
network bicubic is timed again, so the ratio holds on a machine whose speed changes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from benchmark.charts import scatter
from benchmark.complexity import PROTOCOL_SIZES, complexity
from benchmark.errors import BenchmarkError
from benchmark.score import score
from models.layout import channels_last
from models.registry import get, specs
from models.reparam import reparameterise
from models.spec import ModelSpec
from models.weights import untrained

_WARM_UP_RUNS, _RUNS = 50, 244
_BICUBIC_RUNS = 20
_COLUMNS = ("x bicubic", "params M", "GMAC", "memory MB", "score")


class Mode(StrEnum):
    """How PyTorch runs the network."""

    EAGER = "eager"
    COMPILED = "compiled"
    GRAPH = "graph"


class Device(StrEnum):
    """Where the network runs."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass
class Row:
    """What was measured of one method at one scale. Times are medians in milliseconds."""

    model: str
    scale: int
    params: int
    macs: int
    ms: dict[str, float] = field(default_factory=dict[str, float])
    """By mode."""
    bicubic_ms: float = 0.0
    """Of bicubic in eager mode, measured right before."""
    ratio: float = 0.0
    """The fastest mode's time over bicubic's."""
    runs: int = 0
    peak_memory_mb: float = 0.0
    """What one run in eager mode needs beyond the weights and the input."""
    psnr_rgb: float | None = None
    """The report's, in dB."""
    score: float | None = None
    """Of the report's PSNR and the time measured here."""
    failed: dict[str, str] = field(default_factory=dict[str, str])
    """Modes that could not be measured, and why."""


def command(
    model: Annotated[str, typer.Option(help="One method, or 'all'.")] = "all",
    device: Annotated[Device | None, typer.Option(help="By default cuda where there is a GPU.")] = None,
    precision: Annotated[str, typer.Option(help="fp16, bf16 or fp32; by default fp16 on a GPU, fp32 on a CPU.")] = "",
    mode: Annotated[
        list[Mode] | None, typer.Option(help="May be repeated; by default all on a GPU, eager else.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="For each method and mode; a slower one is timed once.")
    ] = 10.0,
    output: Annotated[Path, typer.Option(help="Where .json, .md and .svg go: a path without suffix.")] = Path(
        "out/runtime"
    ),
) -> None:
    """Milliseconds per frame of every network on this device, beside bicubic in the same run."""
    place = device or (Device.CUDA if torch.cuda.is_available() else Device.CPU)
    if place is Device.CUDA and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: this machine has no usable GPU")
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    precision = precision or ("fp16" if place is Device.CUDA else "fp32")
    if precision not in dtypes:
        raise BenchmarkError(f"--precision {precision}: known are {', '.join(dtypes)}")
    modes = mode or (list(Mode) if place is Device.CUDA else [Mode.EAGER])
    if Mode.GRAPH in modes and place is Device.CPU:
        raise BenchmarkError("--mode graph: CUDA graphs need a GPU")
    chosen = list(specs().values()) if model == "all" else [get(model)]
    jobs = [(spec, scale) for scale in PROTOCOL_SIZES for spec in chosen if scale in spec.scales]
    report: dict[str, Any] = {
        "device": device_name(place),
        "precision": precision,
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "protocol": f"batch 1, random frames, up to {_WARM_UP_RUNS} warm-up and {_RUNS} timed runs "
        f"or {seconds:g} s for each method and mode, median",
        "command": _command_line(model, place, precision, modes, seconds),
        "rows": [],
    }
    torch.backends.cudnn.benchmark = True
    output.parent.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Progress(console=console) as progress:
        bar = progress.add_task("measuring", total=len(jobs))
        for spec, scale in jobs:
            progress.update(bar, description=f"{spec.name} x{scale}")
            row = measure(spec, scale, place, dtypes[precision], modes, seconds)
            report["rows"].append(asdict(row))
            times = ", ".join(f"{name} {value:.2f} ms" for name, value in row.ms.items())
            progress.console.print(f"{row.model} x{row.scale}: {times}, {row.ratio:.1f} x bicubic")
            progress.advance(bar)
            # After every method: a run that is cut short has not been in vain.
            output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    output.with_suffix(".md").write_text(markdown(report))
    console.print(markdown(report))
    _draw(report, output.with_suffix(".svg"))
    console.print(f"written: {output}.json, {output}.md, {output}.svg")


def measure(spec: ModelSpec, scale: int, device: Device, dtype: torch.dtype, modes: list[Mode], seconds: float) -> Row:
    """Time one method at one scale."""
    height, width = PROTOCOL_SIZES[scale]
    deployed = reparameterise(untrained(spec, scale))
    cost = complexity(deployed, height, width)
    frame = torch.randn(1, 3, height, width, device=device.value, dtype=dtype)
    row = Row(spec.name, scale, cost.params, cost.macs, psnr_rgb=spec.reported[scale].psnr_rgb)
    reference = reparameterise(untrained(get("bicubic"), scale))
    with torch.inference_mode():
        row.bicubic_ms = median(_timed(reference, frame, device, min(seconds, 2.0), _BICUBIC_RUNS))
        network = deployed.to(device.value, dtype)
        row.peak_memory_mb = _peak_memory_mb(network, frame, device)
        for mode in modes:
            try:
                runner = _prepare(network, frame, mode)
                times = _timed(runner, frame, device, seconds, _RUNS)
            except Exception as error:  # a compiler or a CUDA graph may refuse a network: the other modes go on
                row.failed[mode.value] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
                continue
            row.ms[mode.value] = round(median(times), 4)
            row.runs = len(times)
    if row.ms:
        best = min(row.ms.values())
        row.ratio = round(best / row.bicubic_ms, 2)
        row.score = round(score(row.psnr_rgb, best, scale), 2) if row.psnr_rgb and spec.learned else None
    row.bicubic_ms = round(row.bicubic_ms, 4)
    del network, deployed
    torch.compiler.reset()
    gc.collect()
    if device is Device.CUDA:
        torch.cuda.empty_cache()
    return row


def _prepare(network: nn.Module, frame: Tensor, mode: Mode) -> Callable[[Tensor], Tensor]:
    if mode is Mode.EAGER:
        return network
    # As the report ran them: eager, contiguous. The faster modes also take the layout that tensor cores like.
    channels_last(network)
    if mode is Mode.COMPILED:
        compiled: Callable[[Tensor], Tensor] = torch.compile(network)
        return compiled
    graph = torch.cuda.CUDAGraph()
    still = frame.clone()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(still)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        answer = network(still)

    def replay(x: Tensor) -> Tensor:
        still.copy_(x)
        graph.replay()
        return answer

    return replay


def _timed(run: Callable[[Tensor], Tensor], frame: Tensor, device: Device, seconds: float, most: int) -> list[float]:
    """Milliseconds of each run, after a warm-up that takes no longer than they do."""
    warm_up = list(_runs(run, frame, device, seconds, _WARM_UP_RUNS))
    # What is slow is warm after one run; three are enough for a median.
    least = 3 if len(warm_up) > 1 else 1
    return list(_runs(run, frame, device, seconds, most, least))


def _runs(
    run: Callable[[Tensor], Tensor], frame: Tensor, device: Device, seconds: float, most: int, least: int = 1
) -> Iterator[float]:
    end = time.perf_counter() + seconds
    for number in range(most):
        if number >= least and time.perf_counter() > end:
            return
        if device is Device.CUDA:
            begin, finish = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run(frame)
            finish.record()
            torch.cuda.synchronize()
            yield begin.elapsed_time(finish)
        else:
            began = time.perf_counter()
            run(frame)
            yield 1000 * (time.perf_counter() - began)


def _peak_memory_mb(network: nn.Module, frame: Tensor, device: Device) -> float:
    """Memory that one run needs at its peak, beyond what is held before it."""
    if device is Device.CUDA:
        network(frame)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        network(frame)
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # Linux forgets the peak when told to; proc(5).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kb("VmRSS")
    network(frame)
    return round((_status_kb("VmHWM") - before) / 1024, 1)


def _status_kb(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def device_name(device: Device) -> str:
    """What the measurements are of."""
    if device is Device.CUDA:
        return torch.cuda.get_device_name()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {name}"


def _command_line(model: str, device: Device, precision: str, modes: list[Mode], seconds: float) -> str:
    chosen = " ".join(f"--mode {mode.value}" for mode in modes)
    return (
        f"python -m benchmark runtime --model {model} --device {device.value} --precision {precision} "
        f"{chosen} --seconds {seconds:g}"
    )


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown page, fastest first."""
    rows = [Row(**row) for row in report["rows"]]
    modes = list(dict.fromkeys(mode for row in rows for mode in row.ms))
    lines = [
        f"# Runtime on {report['device']}, {report['precision']}",
        "",
        f"{report['date']}, PyTorch {report['torch']}; {report['protocol']}.",
        "Random weights: they cost what trained ones do.",
        "",
        f"    {report['command']}",
        "",
        "`x bicubic` is the fastest mode's time over bicubic's, measured right before. The score is the report's",
        "formula with the report's PSNR and the time measured here; on another device than the report's, its order",
        "counts, not its size. Memory is what one frame needs at its peak in eager mode.",
    ]
    for scale, (height, width) in PROTOCOL_SIZES.items():
        of_scale = sorted((row for row in rows if row.scale == scale and row.ms), key=lambda row: row.ratio)
        if not of_scale:
            continue
        lines += [
            "",
            f"## x{scale}: {height}x{width} to {height * scale}x{width * scale}",
            "",
            f"| {' | '.join(['model', *(f'{mode} ms' for mode in modes), *_COLUMNS])} |",
            "|---|" + "---|" * (len(modes) + len(_COLUMNS)),
        ]
        for row in of_scale:
            times = " | ".join(f"{row.ms[mode]:.2f}" if mode in row.ms else "-" for mode in modes)
            lines.append(
                f"| {row.model} | {times} | {row.ratio:.1f} | {row.params / 1e6:.4f} | {row.macs / 1e9:.2f} "
                f"| {row.peak_memory_mb:.0f} | {'' if row.score is None else f'{row.score:.2f}'} |"
            )
    failures = [f"- {row.model} x{row.scale}, {mode}: {why}" for row in rows for mode, why in row.failed.items()]
    if failures:
        lines += ["", "## Not measured", "", *failures]
    return "\n".join(lines) + "\n"


def _draw(report: dict[str, Any], path: Path) -> None:
    """A chart of the report's gain in PSNR over the time measured here."""
    points = {
        f"x{scale}": [
            (row["model"], row["ratio"], row["psnr_rgb"] - get("bicubic").reported[scale].psnr_rgb)
            for row in report["rows"]
            if row["scale"] == scale and row["ratio"]
        ]
        for scale in PROTOCOL_SIZES
    }
    scatter(
        {scale: found for scale, found in points.items() if found},
        path,
        title=f"{report['device']}, {report['precision']}, {report['date']}",
        x="time of a frame, in times bicubic's, measured in the same run",
        y="the report's gain over bicubic, dB PSNR",
    )
