"""The Triton repository that is measured: a network that costs nearly nothing, and RUNet x2."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from google.protobuf import text_format

from benchmark.errors import BenchmarkError
from benchmark.serving.task import IDENTITY, RUNET
from export.triton_config import model_config_pb2

_MAX_BATCH = 8
_MODEL = Path(__file__).resolve().parent / "identity_model.py"


def make_repository(folder: Path, exported: Path, pixel_formats: Collection[str]) -> Path:
    """Write identity variants for these pixel formats into `folder`, and copy RUNet x2 from the repository `exported`.

    Raises:
        BenchmarkError: RUNet x2 has not been exported.
    """
    name = RUNET.variant()
    if not (exported / name / "config.pbtxt").exists():
        raise BenchmarkError(f"no {name} in {exported}: run 'python export/ --model runet --scale 2' first")
    shutil.copytree(exported / name, folder / name)
    for pixel_format in pixel_formats:
        name = IDENTITY.variant(pixel_format)
        (folder / name / "1").mkdir(parents=True)
        shutil.copy(_MODEL, folder / name / "1" / "model.py")
        (folder / name / "config.pbtxt").write_text(_config(name, pixel_format))
    return folder


def _config(name: str, pixel_format: str) -> str:
    config = model_config_pb2.ModelConfig(name=name, backend="python", max_batch_size=_MAX_BATCH)
    dims = [-1, -1, 3] if pixel_format == "rgb24" else [-1, -1]
    config.input.add(name="lr_frames", data_type=model_config_pb2.TYPE_UINT8, dims=dims)
    if pixel_format != "rgb24":
        config.input.add(name="colours", data_type=model_config_pb2.TYPE_FP32, dims=[2, 3, 4])
    config.output.add(name="sr_frames", data_type=model_config_pb2.TYPE_UINT8, dims=dims)
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    # No dynamic batcher: where requests follow each other within milliseconds, Triton 2.51's lets one in ten of them
    # wait for half a second.
    parameters = {"model": "identity", "scale": str(IDENTITY.scale), "profile": IDENTITY.profile, "trained": "true"}
    for key, value in {**parameters, "pixel_format": pixel_format}.items():
        config.parameters[key].string_value = value
    return text_format.MessageToString(config)
