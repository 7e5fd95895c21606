"""Which CPU engine the embedded Triton should run: time and fidelity, side by side in one run.

One tritonserver per engine, all started first; then they take turns, frame by frame.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tritonclient.grpc import InferenceServerClient, InferInput

from deploy.embedded import EmbeddedTriton
from deploy.local import REPOSITORY, ROOT
from training.degradation import degrade
from training.metrics import psnr

ENGINES = ("onnxruntime", "openvino", "openvino-bf16")


def command(
    variant: Annotated[str, typer.Option(help="A variant in model_repository/.")] = "runet_x2_clean",
    scale: Annotated[int, typer.Option(help="Of that variant.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Frames for each engine.")] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """The embedded Triton's CPU engines: milliseconds per frame, PSNR of a photograph and of a flat gradient."""
    originals = {"photograph": _photograph(), "gradient": _gradient()}
    frames = {name: degrade(picture, scale) for name, picture in originals.items()}
    with contextlib.ExitStack() as stack:
        clients: dict[str, Any] = {}
        for engine in ENGINES:
            server = stack.enter_context(EmbeddedTriton(REPOSITORY, engine=engine))
            clients[engine] = InferenceServerClient(server.url)
        quality = {
            engine: {name: psnr(infer(client, variant, frame), originals[name]) for name, frame in frames.items()}
            for engine, client in clients.items()
        }
        times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
        for _ in track(range(rounds), "measuring", disable=as_json):
            for engine, client in clients.items():
                began = time.perf_counter()
                infer(client, variant, frames["photograph"])
                times[engine].append(time.perf_counter() - began)
    base = median(times["onnxruntime"])
    rows = {
        engine: {
            "median_ms": round(1000 * median(times[engine]), 1),
            "ratio": round(median(times[engine]) / base, 3),
            **{f"psnr_{name}": round(value, 3) for name, value in quality[engine].items()},
        }
        for engine in ENGINES
    }
    if as_json:
        print(json.dumps({"variant": variant, "rounds": rounds, "cores": os.cpu_count(), "engines": rows}, indent=2))
        return
    table = Table(
        "engine", "median ms", "ratio", "PSNR photograph", "PSNR gradient", title=f"{variant}, one frame to 4K"
    )
    for engine, row in rows.items():
        table.add_row(
            engine,
            f"{row['median_ms']:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['psnr_photograph']:.2f}",
            f"{row['psnr_gradient']:.2f}",
        )
    Console().print(table)


def infer(client: Any, variant: str, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What Triton itself makes of one frame, uint8 RGB (h, w, 3)."""
    frames = InferInput("lr_frames", [1, *frame.shape], "UINT8")
    frames.set_data_from_numpy(frame[None])
    return client.infer(variant, [frames]).as_numpy("sr_frames")[0]


def _photograph() -> NDArray[np.uint8]:
    return np.asarray(Image.open(ROOT / "samples" / "nuthatch_4k.jpg").convert("RGB"))


def _gradient() -> NDArray[np.uint8]:
    """A smooth sky, where reduced precision shows first."""
    rows, columns = np.mgrid[0:2160, 0:3840]
    sky = np.stack([60 + columns / 40 + rows / 60, 110 + rows / 25, 200 - rows / 50], axis=-1)
    return np.clip(np.round(sky), 0, 255).astype(np.uint8)
