"""ONNX to a TensorRT engine, on the GPU that will run it.

Written against TensorRT 10's Python API; `trtexec` is the fallback. An engine belongs to the GPU and the TensorRT
version that built it, both of which go into the manifest.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from export.errors import ExportError, MissingToolError
from export.graph import PixelFormat, input_shapes

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class FrameShapes:
    """The frame sizes (height, width) an engine is built for; batches go from 1 to `max_batch`."""

    smallest: tuple[int, int]
    usual: tuple[int, int]
    largest: tuple[int, int]
    max_batch: int
    pixel_format: PixelFormat = "rgb24"

    def profile(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """Minimum, optimum and maximum shapes of the inputs, by name: TensorRT's optimisation profile."""
        return tuple(
            {name: (batch, *shape) for name, shape in input_shapes(self.pixel_format, *size).items()}
            for batch, size in ((1, self.smallest), (1, self.usual), (self.max_batch, self.largest))
        )


def to_engine(model: onnx.ModelProto, precision: Precision, shapes: FrameShapes) -> tuple[bytes, dict[str, str]]:
    """The serialised engine, and the versions and the device it belongs to.

    Raises:
        MissingToolError: neither the `tensorrt` package nor `trtexec` is on this machine.
        ExportError: TensorRT refuses the model; the message is its first error.
    """
    try:
        import tensorrt  # pyright: ignore[reportMissingImports] - only on machines with an NVIDIA GPU
    except ImportError:
        return _by_trtexec(model, precision, shapes)
    return _by_api(tensorrt, model, precision, shapes)


def _by_api(
    trt: Any, model: onnx.ModelProto, precision: Precision, shapes: FrameShapes
) -> tuple[bytes, dict[str, str]]:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # Strongly typed: the precision is the graph's own (the fp16 export casts inside it); nothing is chosen for us.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        raise ExportError(f"TensorRT cannot read the model: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    smallest, usual, largest = shapes.profile()
    for name in usual:
        profile.set_shape(name, smallest[name], usual[name], largest[name])
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"TensorRT {trt.__version__} could not build an engine; its log above says why")
    return bytes(engine), {"tensorrt": trt.__version__, "device": _device(), "precision": precision}


def _by_trtexec(model: onnx.ModelProto, precision: Precision, shapes: FrameShapes) -> tuple[bytes, dict[str, str]]:
    trtexec = shutil.which("trtexec")
    if trtexec is None:
        raise MissingToolError(
            "--format tensorrt needs the 'tensorrt' Python package or 'trtexec' on the PATH, and an NVIDIA GPU; "
            "neither is on this machine (--format onnx works anywhere)"
        )
    with tempfile.TemporaryDirectory() as scratch:
        onnx_path, plan_path = Path(scratch, "model.onnx"), Path(scratch, "model.plan")
        onnx.save(model, onnx_path)
        names = ("minShapes", "optShapes", "maxShapes")
        sizes = [
            f"--{name}=" + ",".join(f"{each}:{'x'.join(map(str, shape))}" for each, shape in inputs.items())
            for name, inputs in zip(names, shapes.profile(), strict=True)
        ]
        command = [
            trtexec,
            f"--onnx={onnx_path}",
            f"--saveEngine={plan_path}",
            "--stronglyTyped",
            "--skipInference",
            *sizes,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not plan_path.exists():
            errors = [line for line in done.stdout.splitlines() if "[E]" in line] or done.stderr.splitlines()
            raise ExportError(f"trtexec failed: {errors[0] if errors else f'exit code {done.returncode}'}")
        return plan_path.read_bytes(), {"tensorrt": "trtexec", "device": _device(), "precision": precision}


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "unknown"
