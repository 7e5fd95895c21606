"""The export of one variant, step by step: load, fuse, convert, prove, write."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from export.graph import PixelFormat, deployed_graph, reference_graph
from export.repository import write_variant
from export.to_engine import FrameShapes, Precision, to_engine
from export.to_onnx import OPSET, to_onnx
from export.triton_config import MODEL_FILES, Format, triton_config
from export.verify import TOLERANCE, Parity, verify_onnx
from models.spec import ModelSpec
from models.weights import Profile, digest, load, untrained, variant_name, weights_path

MAX_BATCH = 8
SMALLEST_FRAME = (16, 16)
FRAMES = {2: (1080, 1920), 3: (720, 1280)}
"""Height and width of the frame that becomes 4K, by scale."""
OFFLINE_WARM_UP = (180, 320)
"""Of networks too slow for real time: a whole frame would keep a CPU busy for minutes."""
_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class Exported:
    """What an export made."""

    path: Path
    parity: Parity
    parameters: int
    trained: bool
    """False if there were no weights and random ones took their place."""


def export_variant(
    spec: ModelSpec,
    scale: int,
    profile: Profile,
    *,
    pixel_format: PixelFormat = "rgb24",
    repository: Path,
    weights: Path,
    fmt: Format = "onnx",
    precision: Precision = "fp32",
    version: int = 1,
    allow_untrained: bool = False,
    report: Callable[[str], None] = lambda step: None,
) -> Exported:
    """Export one network into `repository`.

    Args:
        spec: the method.
        scale: 2 or 3.
        profile: which of its weights.
        pixel_format: of the frames, in and out; others than "rgb24" are part of the variant's name.
        repository: the Triton repository; the variant appears in it only if every check passed.
        weights: the folder of the weights.
        fmt: "onnx", or "tensorrt" on a machine with TensorRT.
        precision: of the graph's inside; its borders are uint8 always.
        version: of the variant in the repository; others stay beside it, and are served as before.
        allow_untrained: where there are no weights, export random ones, marked as such, instead of refusing.
        report: called with the name of each step as it begins.

    Raises:
        WeightsError, UnsupportedScaleError: there is nothing to export.
        ExportError: a check failed or a tool is missing; the repository is as it was.
    """
    variant = variant_name(spec.name, scale, profile) + ("" if pixel_format == "rgb24" else f"_{pixel_format}")
    report("loading and re-parameterising")
    file = weights_path(spec, scale, profile, weights)
    trained = not (allow_untrained and spec.learned and not file.exists())
    network = load(spec, scale, profile, weights) if trained else untrained(spec, scale)
    deployed = deployed_graph(spec, network, _DTYPES[precision], pixel_format)
    report("converting to ONNX")
    model = to_onnx(deployed, batchable=spec.batchable)
    report("comparing with PyTorch")
    parity = verify_onnx(model, reference_graph(spec, network, pixel_format), batchable=spec.batchable)
    max_batch = MAX_BATCH if spec.batchable else 1
    engine_facts: dict[str, str] = {}
    model_bytes = model.SerializeToString()
    if fmt == "tensorrt":
        report("building the TensorRT engine")
        shapes = FrameShapes(SMALLEST_FRAME, FRAMES[scale], FRAMES[scale], max_batch, pixel_format)
        model_bytes, engine_facts = to_engine(model, precision, shapes)
    report("writing")
    size = sum(parameter.numel() for parameter in deployed.parameters())
    manifest: dict[str, Any] = {
        "variant": variant,
        "version": version,
        "model": spec.name,
        "scale": scale,
        "profile": profile,
        "pixel_format": pixel_format,
        "format": fmt,
        "precision": precision,
        "opset": OPSET,
        "parameters": size,
        "trained": trained,
        "weights_sha256": digest(file) if trained and spec.learned else None,
        "parity": {**asdict(parity), "tolerance": TOLERANCE, "engine": "ONNX Runtime", "reference": "PyTorch fp32"},
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in ("torch", "onnx", "onnxscript", "onnxruntime")},
            **engine_facts,
        },
    }
    parameters = {
        "model": spec.name,
        "scale": str(scale),
        "profile": profile,
        "trained": str(trained).lower(),
    }
    config = triton_config(
        variant,
        fmt,
        pixel_format,
        parameters=parameters,
        max_batch=max_batch,
        warm_up=FRAMES[scale] if spec.real_time(scale) else OFFLINE_WARM_UP,
    )
    path = write_variant(repository, variant, config, MODEL_FILES[fmt], model_bytes, manifest, version)
    return Exported(path, parity, size, trained)
