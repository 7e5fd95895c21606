"""Proof that an exported model computes what the network computes: random and real frames, a stated tolerance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from export.errors import ParityError
from export.graph import COLOURS_NAME, INPUT_NAME, ServedGraph
from upscale_client.colour import colour_maps

TOLERANCE = 1
"""Grey levels: rounding at x.5 may fall either way, nothing more may differ."""
_SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "nuthatch_4k.jpg"


@dataclass(frozen=True)
class Parity:
    """How far an engine's frames are from PyTorch's."""

    max_difference: int
    """In grey levels, over all frames."""
    share_different: float
    """Share of the values that differ at all, over all frames."""
    frames: tuple[str, ...]


def verify_onnx(model: onnx.ModelProto, reference: ServedGraph, *, batchable: bool = True) -> Parity:
    """Compare the model in ONNX Runtime with `reference` (float32, PyTorch), frame by frame if not `batchable`.

    Raises:
        ParityError: a value differs by more than `TOLERANCE`.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst, different, values = 0, 0, 0
    frames = _rgb24_frames() if reference.pixel_format == "rgb24" else _nv12_frames()
    if not batchable:
        frames = {
            f"{name}, {i}": {key: value[i : i + 1] for key, value in inputs.items()}
            for name, inputs in frames.items()
            for i in range(len(inputs[INPUT_NAME]))
        }
    for name, inputs in frames.items():
        with torch.inference_mode():
            expected = reference(*map(torch.from_numpy, inputs.values())).numpy()
        try:
            actual = np.asarray(session.run(None, inputs)[0])
        except Exception as error:  # ONNX Runtime's errors have no common base
            raise ParityError(f"frame '{name}': ONNX Runtime fails: {str(error).splitlines()[0]}") from error
        if actual.shape != expected.shape:
            raise ParityError(f"frame '{name}': the exported model gives shape {actual.shape}, not {expected.shape}")
        difference = np.abs(actual.astype(np.int16) - expected)
        worst = max(worst, int(difference.max()))
        different += int(np.count_nonzero(difference))
        values += difference.size
        if worst > TOLERANCE:
            raise ParityError(
                f"frame '{name}': the exported model differs from PyTorch by {worst} grey levels (allowed: {TOLERANCE})"
            )
    return Parity(worst, different / values, tuple(frames))


def _rgb24_frames() -> dict[str, dict[str, NDArray[Any]]]:
    """Frames (N, H, W, 3): noise, a batch of odd size, flat fields, and a photograph."""
    rng = np.random.default_rng(0)
    frames = {
        "the smallest, 16x16": rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8),
        "random 160x96": rng.integers(0, 256, (1, 96, 160, 3), dtype=np.uint8),
        "batch of 3, 61x47": rng.integers(0, 256, (3, 47, 61, 3), dtype=np.uint8),
        "flat black, grey and white": np.stack([np.full((48, 48, 3), grey, np.uint8) for grey in (0, 128, 255)]),
        "photograph 960x540": np.asarray(_photograph())[None].copy(),
    }
    return {name: {INPUT_NAME: each} for name, each in frames.items()}


def _nv12_frames() -> dict[str, dict[str, NDArray[Any]]]:
    """Frames (N, H*3/2, W) of the same kinds; those of a batch differ in their colours."""
    rng = np.random.default_rng(0)
    flat = np.full((3, 72, 48), 128, np.uint8)
    flat[:, :48] = np.array([0, 128, 255])[:, None, None]
    picture = _photograph().convert("YCbCr")
    chroma = np.asarray(picture.reduce(2))[..., 1:]
    photograph = np.concatenate([np.asarray(picture)[..., 0], chroma.reshape(len(chroma), picture.width)])
    frames = {
        "the smallest, 16x16": rng.integers(0, 256, (1, 24, 16), dtype=np.uint8),
        "random 160x96": rng.integers(0, 256, (1, 144, 160), dtype=np.uint8),
        "batch of 3, 62x46": rng.integers(0, 256, (3, 69, 62), dtype=np.uint8),
        "flat black, grey and white": flat,
        "photograph 960x540": photograph[None],
    }
    # Pillow's YCbCr is the first of these.
    colours = np.stack([colour_maps("bt601", True), colour_maps("bt709", False), colour_maps("bt709", True)])
    return {name: {INPUT_NAME: each, COLOURS_NAME: colours[: len(each)]} for name, each in frames.items()}


def _photograph() -> Image.Image:
    with Image.open(_SAMPLE) as image:
        return image.convert("RGB").resize((960, 540), Image.Resampling.BICUBIC)
