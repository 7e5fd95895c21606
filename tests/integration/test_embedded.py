"""The embedded Triton by itself: what other clients than the gateway meet."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from deploy.embedded import EmbeddedTriton
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from upscale_client.colour import colour_maps

Pixels = NDArray[np.uint8]


def infer(url: str, frame: Pixels) -> Pixels:
    client: Any = InferenceServerClient(url)
    frames = InferInput("lr_frames", [1, *frame.shape], "UINT8")
    frames.set_data_from_numpy(frame[None])
    return client.infer("runet_x2_clean", [frames]).as_numpy("sr_frames")[0]


def infer_nv12(url: str, frames: Pixels, colours: NDArray[np.float32]) -> Pixels:
    client: Any = InferenceServerClient(url)
    inputs = [InferInput("lr_frames", list(frames.shape), "UINT8"), InferInput("colours", list(colours.shape), "FP32")]
    for each, array in zip(inputs, (frames, colours), strict=True):
        each.set_data_from_numpy(array)
    return client.infer("runet_x2_clean_nv12", inputs).as_numpy("sr_frames")


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


@pytest.fixture(scope="module")
def both_formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with RUNet x2 for RGB24 and for NV12."""
    folder = tmp_path_factory.mktemp("both")
    for pixel_format in ("rgb24", "nv12"):
        export_variant(get("runet"), 2, "clean", pixel_format=pixel_format, repository=folder, weights=WEIGHTS_DIR)
    return folder


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_one_triton_serves_both_pixel_formats(
    both_formats: Path, triton: EmbeddedTriton, engine: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 81, 96), dtype=np.uint8)
    colours = np.stack([colour_maps("bt709", False), colour_maps("bt601", True)])
    session = onnxruntime.InferenceSession(both_formats / "runet_x2_clean_nv12" / "1" / "model.onnx")
    expected = np.asarray(session.run(None, {"lr_frames": frames, "colours": colours})[0])
    rgb = rng.integers(0, 256, (54, 96, 3), dtype=np.uint8)
    with EmbeddedTriton(both_formats, engine=engine, log=tmp_path / "triton.log") as both:
        answer = infer_nv12(both.url, frames, colours)
        assert answer.shape == (2, 162, 192)
        assert np.abs(answer.astype(np.int16) - expected).max() <= 1
        assert np.abs(infer(both.url, rgb).astype(np.int16) - infer(triton.url, rgb)).max() <= 1
        with pytest.raises(InferenceServerException):
            infer_nv12(both.url, np.zeros((1, 81, 95), np.uint8), colours[:1])
        # The one that failed has harmed nothing.
        np.testing.assert_array_equal(infer_nv12(both.url, frames, colours), answer)
    assert "ONNX Runtime takes it" not in (tmp_path / "triton.log").read_text()
