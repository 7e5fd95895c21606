"""`python -m benchmark chain`: client, gateway, Triton and a real network, beside Triton asked directly.

Meant for a GPU, where the network is fast enough for everything around it to matter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
import types
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import track

from benchmark.engines import ENGINES
from benchmark.errors import BenchmarkError
from benchmark.runtime import Device, device_name
from benchmark.serving.clients import RemoteClients, clients_of
from benchmark.serving.frames import Sample
from benchmark.serving.measure import cpu_seconds, percentiles_ms
from benchmark.serving.photographs import photographs
from benchmark.serving.task import Task
from benchmark.serving.ways import gateway_ways, triton_ways
from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import ROOT, GatewayProcess, LocalStack
from export.exporter import export_variant
from export.graph import reference_graph
from export.triton_config import model_config_pb2
from models.registry import get
from models.weights import WEIGHTS_DIR, load

NETWORKS = (Task("runet", 2, "compressed"), Task("bicubic_plus_plus", 3, "compressed", 1280, 720))
_PAIRS = {
    "shm": {"gateway_shm": "gateway_shm_rgb24", "triton_shm": "triton_shm"},
    "bytes": {"gateway_bytes": "gateway_unary_rgb24", "triton_bytes": "triton_bytes"},
}
"""What takes turns: a row's name and that of its way."""
_TOLERANCE = 6
"""Grey levels that half precision may cost; another frame's answer is further off."""
_SECONDS, _PASSES = 0.5, 4
_WARM_TURNS = 3
_REPLAYS = 50
_GPU_ENGINE = "torch in Triton's Python stub: fp16, channels last, a CUDA graph; a stand-in for TensorRT"


@dataclass
class _Gathered:
    """All slices of a way."""

    seconds: list[float] = field(default_factory=list[float])
    elapsed: float = 0.0
    gateway_cpu_s: float = 0.0
    stages: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """The sum of the seconds and the count of the frames, by stage, as the gateway tells them."""


def command(
    engine: Annotated[str, typer.Option(help="Of the embedded Triton; torch is the one that uses a GPU.")] = "torch",
    instances: Annotated[
        list[int] | None, typer.Option(min=1, help="Of each network; may be repeated. By default 1 and 4.")
    ] = None,
    in_flight: Annotated[
        list[int] | None, typer.Option(min=1, help="Clients at once; may be repeated. By default 1, 2 and 4.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of a slice: one way, so many clients at once.")] = _SECONDS,
    passes: Annotated[int, typer.Option(min=1, help="Slices of each.")] = _PASSES,
    output: Annotated[Path, typer.Option(help="Where .json and .md go: a path without suffix.")] = Path("out/chain"),
) -> None:
    """Frames a second and their times through gateway, Triton and network, beside Triton asked directly."""
    known = (*ENGINES, "torch")
    if engine not in known:
        raise BenchmarkError(f"--engine {engine}: known are {', '.join(known)}")
    report = measure(NETWORKS, engine, instances or [1, 4], in_flight or [1, 2, 4], seconds, passes)
    report["command"] = (
        "python -m benchmark chain"
        + ("" if engine == "torch" else f" --engine {engine}")
        + "".join(f" --instances {each}" for each in instances or ())
        + "".join(f" --in-flight {each}" for each in in_flight or ())
        + ("" if seconds == _SECONDS else f" --seconds {seconds:g}")
        + ("" if passes == _PASSES else f" --passes {passes}")
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    json_file, page = (output.with_name(output.name + suffix) for suffix in (".json", ".md"))
    json_file.write_text(json.dumps(report, indent=1) + "\n")
    page.write_text(f"# The whole chain\n\n{markdown(report)}")
    print(markdown(report))
    Console().print(f"written: {json_file}, {page}")


def measure(
    networks: Sequence[Task],
    engine: str,
    instances: Sequence[int],
    in_flight: Sequence[int],
    seconds: float,
    passes: int,
) -> dict[str, Any]:
    """The report without its command; arguments as those of `command`.

    Raises:
        BenchmarkError: an answer is wrong, or there is none.
    """
    on_gpu = engine == "torch" and torch.cuda.is_available()
    packages = ("grpcio", "protobuf", "numpy", "tritonclient", "torch")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="upscale-benchmark-") as folder:
        models = Path(folder) / "models"
        for task in networks:
            export_variant(get(task.model), task.scale, task.profile, repository=models, weights=WEIGHTS_DIR)
        samples = {task: _samples(task) for task in networks}
        # In a process of its own, whose memory on the GPU goes with it.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            alone = {
                task.variant(): pool.submit(_engine_alone, models, task, engine, samples[task][0], seconds).result()
                for task in networks
            }
        for count in instances:
            _configure(models, count, max(in_flight))
            settings: dict[str, object] = {"port": free_port(), "metrics_port": free_port(), "warm_up_s": 2}
            triton = EmbeddedTriton(models, engine=engine)
            with LocalStack(triton, settings, Path(folder) / "gateway.log") as stack:
                for task in networks:
                    rows += _take_turns(stack, task, samples[task], count, in_flight, seconds, passes)
    return {
        "what": "closed loop; each frame in flight is a client process of its own; "
        "a frame's time includes putting it into shared memory",
        "device": device_name(Device.CUDA if on_gpu else Device.CPU),
        "date": datetime.now(UTC).date().isoformat(),
        "engine": _GPU_ENGINE if on_gpu else engine,
        "seconds_of_a_slice": seconds,
        "cores": os.cpu_count(),
        "versions": {package: version(package) for package in packages},
        "networks": {
            task.model: f"x{task.scale}, {task.width}x{task.height} to "
            f"{task.width * task.scale}x{task.height * task.scale}"
            for task in networks
        },
        "network_alone": alone,
        "rows": rows,
    }


def _samples(task: Task) -> list[Sample]:
    """The frames, and what the network as it was trained makes of them, in fp32 on the CPU."""
    graph = reference_graph(get(task.model), load(get(task.model), task.scale, task.profile))
    frames = photographs(task)
    with torch.inference_mode():
        answers = [graph(torch.from_numpy(frame.pixels[None].copy()))[0].numpy() for frame in frames]
    return [frame.answered(answer, _TOLERANCE) for frame, answer in zip(frames, answers, strict=True)]


def _configure(models: Path, instances: int, most: int) -> None:
    """Set the instances of every model, and let no batch be larger than the frames that there will be."""
    for path in models.glob("*/config.pbtxt"):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        config.instance_group[0].count = instances
        config.max_batch_size = min(config.max_batch_size, most)
        path.write_text(text_format.MessageToString(config))


def _engine_alone(models: Path, task: Task, engine: str, sample: Sample, seconds: float) -> dict[str, float]:
    """What Triton's stub does with a frame, done here; of a CUDA graph the time on the GPU by itself, too."""
    os.environ |= {"EMBEDDED_TRITON_ENGINE": engine, "EMBEDDED_TRITON_PROJECT": str(ROOT)}
    stand_in = types.ModuleType("triton_python_backend_utils")  # only the stub has the real one
    vars(stand_in)["TritonModelException"] = BenchmarkError
    sys.modules[stand_in.__name__] = stand_in
    spec = importlib.util.spec_from_file_location("backend", ROOT / "deploy/embedded/backends/onnxruntime/model.py")
    assert spec is not None
    assert spec.loader is not None
    backend: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    network = backend._engine(models / task.variant() / "1" / "model.onnx")
    given = {"lr_frames": sample.pixels[None]}
    difference = sample.check(network.infer(given)[0], f"{engine} by itself")
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while not times or time.perf_counter() < ends:
        began = time.perf_counter()
        network.infer(given)
        times.append(time.perf_counter() - began)
    told = {f"engine_{name}": value for name, value in percentiles_ms(times).items() if value is not None}
    row = {"largest_difference_to_fp32": difference, **told, "engine_frames": len(times)}
    if recorded := getattr(network, "_recorded", None):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(_REPLAYS):
            next(iter(recorded.values()))[-1].replay()
        last.record()
        torch.cuda.synchronize()
        row["graph_on_gpu_ms"] = round(first.elapsed_time(last) / _REPLAYS, 4)
    return row


def _take_turns(
    stack: LocalStack,
    task: Task,
    samples: Sequence[Sample],
    instances: int,
    in_flight: Sequence[int],
    seconds: float,
    passes: int,
) -> list[dict[str, Any]]:
    """The rows of one network: gateway and Triton in turns, by shared memory, then as bytes."""
    ways = {way.name: way for way in (*gateway_ways(stack.gateway.address, task), *triton_ways(stack.triton.url, task))}
    rows: list[dict[str, Any]] = []
    for transport, pair in _PAIRS.items():
        with contextlib.ExitStack() as started:
            # No two ask for the same frame at the same time: an answer to somebody else's would be seen.
            orders = [
                [*samples[first:], *samples[:first]] for first in (n % len(samples) for n in range(max(in_flight)))
            ]
            clients = {
                name: [started.enter_context(clients_of(ways[way], order, 1, keep_buffers=True)) for order in orders]
                for name, way in pair.items()
            }
            for client in (client for each in clients.values() for client in each):
                for number in range(_WARM_TURNS):
                    client.turn(number)
            gathered = {(several, name): _Gathered() for several in in_flight for name in pair}
            told = f"{instances} of {task.model}, {transport}"
            slices = [each for _ in range(passes) for each in gathered.items()]
            for (several, name), row in track(slices, told, console=Console(stderr=True)):
                _slice(clients[name][:several], stack.gateway, seconds, row)
            for (several, name), row in gathered.items():
                where = {"instances": instances, "model": task.model, "way": name, "in_flight": several}
                worst = max(client.largest_difference() for client in clients[name])
                rows.append({**where, **_as_dict(row), "largest_difference_to_fp32": worst, "passes": passes})
    return rows


def _slice(clients: Sequence[RemoteClients], gateway: GatewayProcess, seconds: float, row: _Gathered) -> None:
    """Each client's next frame as soon as it has an answer, for `seconds`."""
    cpu_s, stages = cpu_seconds(gateway.pid), _stages(gateway)
    with ThreadPoolExecutor(len(clients)) as pool:
        began = time.perf_counter()
        done = list(pool.map(lambda client: client.closed(1, seconds)[0], clients))
        row.elapsed += time.perf_counter() - began
    row.seconds += [each for times in done for each in times]
    row.gateway_cpu_s += cpu_seconds(gateway.pid) - cpu_s
    row.stages += _stages(gateway) - stages


def _stages(gateway: GatewayProcess) -> Counter[tuple[str, str]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    stages: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            kind = sample.name.removeprefix("upscale_frame_seconds_")
            if kind in ("sum", "count"):
                stages[kind, sample.labels["stage"]] += sample.value  # pyright: ignore[reportArgumentType]
    return stages


def _as_dict(row: _Gathered) -> dict[str, Any]:
    frames, means = len(row.seconds), row.stages
    return {
        "frames": frames,
        "frames_per_s": round(frames / row.elapsed, 1),
        **percentiles_ms(row.seconds),
        "gateway_cpu_ms_per_frame": round(1000 * row.gateway_cpu_s / frames, 3),
        "stages_mean_ms": {
            stage: round(1000 * means["sum", stage] / count, 2)
            for (kind, stage), count in means.items()
            if kind == "count"
        },
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables: each way through the gateway beside the same to Triton."""
    named = ", ".join(f"{model} {size}" for model, size in report["networks"].items())
    cores = "" if " cores " in report["device"] else f", {report['cores']} cores"
    lines = [
        f"{report['date']}, {report['device']}{cores}, PyTorch {report['versions']['torch']}.",
        f"{named}.",
        f"Engine: {report['engine']}.",
        "",
        f"    {report['command']}",
        "",
        "| network | instances | by | in flight | gateway: frames/s | p50 ms | p99 | frames "
        "| Triton directly: frames/s | p50 ms | p99 | frames | ratio of frames/s |",
        "|" + "---|" * 13,
    ]
    found = {(row["instances"], row["model"], row["way"], row["in_flight"]): row for row in report["rows"]}
    for (instances, model, way, several), row in found.items():
        server, _, transport = way.partition("_")
        if server != "gateway":
            continue
        both = (row, found[instances, model, f"triton_{transport}", several])
        times = " | ".join(
            f"{each['frames_per_s']:.1f} | {each['p50_ms']:.1f} | {each['p99_ms']:.1f} | {each['frames']}"
            for each in both
        )
        ratio = both[0]["frames_per_s"] / both[1]["frames_per_s"]
        by = "shared memory" if transport == "shm" else transport
        lines.append(f"| {model} | {instances} | {by} | {several} | {times} | {ratio:.2f} |")
    lines.append("")
    for model, alone in zip(report["networks"], report["network_alone"].values(), strict=True):
        gpu = f"{alone['graph_on_gpu_ms']:.2f} ms on the GPU, " if "graph_on_gpu_ms" in alone else ""
        lines.append(f"- {model} alone: {gpu}p50 {alone['engine_p50_ms']:.2f} ms with the engine's copies.")
    return "\n".join(lines) + "\n"
