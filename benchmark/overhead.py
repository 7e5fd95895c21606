"""What the gateway adds: one frame through it, against the same model by tritonclient alone, side by side in one run.

The ways take turns, frame by frame, so that a noisy machine is noisy for all of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import shared_memory

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import REPOSITORY, ROOT, LocalStack
from training.degradation import degrade
from upscale_client import UpscaleClient

_VARIANT = "runet_x2_clean"
_SCALE = 2


def command(
    rounds: Annotated[int, typer.Option(min=1, help="Frames each way.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """One 1080p frame by the gateway, and by tritonclient alone (bytes, shared memory)."""
    hr = np.asarray(Image.open(ROOT / "samples" / "nuthatch_4k.jpg").convert("RGB"))
    frame = degrade(hr, _SCALE)
    settings: dict[str, object] = {"port": free_port(), "metrics_port": free_port(), "log_level": "WARNING"}
    with LocalStack(EmbeddedTriton(REPOSITORY), settings) as stack:
        results = _measure(stack, frame, rounds, quiet=as_json)
    medians = {name: median(times) for name, times in results.items()}
    base = medians["tritonclient, shared memory"]
    rows = {
        name: {"median_ms": round(1000 * value, 1), "ratio": round(value / base, 3)} for name, value in medians.items()
    }
    if as_json:
        print(json.dumps({"variant": _VARIANT, "rounds": rounds, "cores": os.cpu_count(), "ways": rows}, indent=2))
        return
    table = Table("way", "median ms", "ratio", title=f"{_VARIANT}, one 1080p RGB frame to 4K, {rounds} rounds")
    for name, row in rows.items():
        table.add_row(name, f"{row['median_ms']:.1f}", f"{row['ratio']:.2f}")
    Console().print(table)


def _measure(stack: LocalStack, frame: NDArray[np.uint8], rounds: int, *, quiet: bool) -> dict[str, list[float]]:
    with UpscaleClient(stack.gateway.address) as client, _Direct(stack.triton.url, frame) as direct:
        ways: dict[str, Callable[[], NDArray[np.uint8]]] = {
            "tritonclient, shared memory": direct.by_shared_memory,
            "tritonclient, bytes": direct.by_bytes,
            "gateway, RGB24 by gRPC": lambda: client.upscale(frame, scale=_SCALE).array,
        }
        answers = {name: way() for name, way in ways.items()}  # warms up, too
        reference = next(iter(answers.values()))
        assert all(np.array_equal(answer, reference) for answer in answers.values()), (
            "the ways disagree. This is a bug."
        )
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in track(range(rounds), "measuring", disable=quiet):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                times[name].append(time.perf_counter() - began)
    return times


class _Direct:
    """tritonclient alone, with its own shared memory; a context manager."""

    def __init__(self, url: str, frame: NDArray[np.uint8]) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._client: Any = InferenceServerClient(url, channel_args=options)
        self._frame = frame[None]
        height, width = frame.shape[:2]
        self._shape = (1, height * _SCALE, width * _SCALE, 3)
        self._in_bytes, self._out_bytes = frame.nbytes, frame.nbytes * _SCALE**2
        self._name = f"upscale-benchmark-{os.getpid()}"

    def __enter__(self) -> _Direct:
        size = self._in_bytes + self._out_bytes
        self._region: Any = shared_memory.create_shared_memory_region(self._name, f"/{self._name}", size)
        self._client.register_system_shared_memory(self._name, f"/{self._name}", size)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.unregister_system_shared_memory(self._name)
        shared_memory.destroy_shared_memory_region(self._region)
        self._client.close()

    def by_shared_memory(self) -> NDArray[np.uint8]:
        shared_memory.set_shared_memory_region(self._region, [self._frame])
        frames = InferInput("lr_frames", list(self._frame.shape), "UINT8")
        frames.set_shared_memory(self._name, self._in_bytes)
        answer = InferRequestedOutput("sr_frames")
        answer.set_shared_memory(self._name, self._out_bytes, self._in_bytes)
        self._client.infer(_VARIANT, [frames], outputs=[answer])
        return shared_memory.get_contents_as_numpy(self._region, np.uint8, self._shape, self._in_bytes)[0]

    def by_bytes(self) -> NDArray[np.uint8]:
        frames = InferInput("lr_frames", list(self._frame.shape), "UINT8")
        frames.set_data_from_numpy(self._frame)
        return self._client.infer(_VARIANT, [frames]).as_numpy("sr_frames")[0]
