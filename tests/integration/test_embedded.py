"""The embedded Triton by itself: what other clients than the gateway meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput

from deploy.embedded import EmbeddedTriton

Pixels = NDArray[np.uint8]


def infer(url: str, frame: Pixels) -> Pixels:
    client: Any = InferenceServerClient(url)
    frames = InferInput("lr_frames", [1, *frame.shape], "UINT8")
    frames.set_data_from_numpy(frame[None])
    return client.infer("runet_x2_clean", [frames]).as_numpy("sr_frames")[0]


def test_requests_that_triton_batches_keep_their_own_frames(triton: EmbeddedTriton) -> None:
    """Requests of several clients that wait together reach the backend together."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (96, 160, 3), dtype=np.uint8) for _ in range(24)]
    alone = [infer(triton.url, frame) for frame in frames]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda frame: infer(triton.url, frame), frames))
    wrong = [i for i, (a, b) in enumerate(zip(alone, together, strict=True)) if not np.array_equal(a, b)]
    assert not wrong


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_every_engine_gives_the_same_picture(triton: EmbeddedTriton, repository: Path, engine: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (54, 96, 3), dtype=np.uint8)
    with EmbeddedTriton(repository, engine=engine) as other:
        difference = infer(other.url, frame).astype(np.int16) - infer(triton.url, frame)
    assert np.abs(difference).max() <= 1
