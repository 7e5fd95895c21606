"""config.pbtxt: what Triton is told about a model. Written from Triton's own protobuf, so what is written parses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as _model_config_pb2

from export.graph import COLOURS_NAME, INPUT_NAME, OUTPUT_NAME, PixelFormat, input_shapes

model_config_pb2: Any = _model_config_pb2  # its names are made at import time, unseen by type checkers
Format = Literal["onnx", "tensorrt"]
BACKENDS: dict[Format, str] = {"onnx": "onnxruntime", "tensorrt": "tensorrt"}
MODEL_FILES: dict[Format, str] = {"onnx": "model.onnx", "tensorrt": "model.plan"}


def triton_config(
    variant: str,
    fmt: Format,
    pixel_format: PixelFormat,
    *,
    parameters: dict[str, str],
    max_batch: int,
    warm_up: tuple[int, int],
    instances: int = 1,
) -> str:
    """The text of a variant's config.pbtxt.

    Args:
        variant: the model's name in the repository.
        fmt: what the model file is.
        pixel_format: of its frames, in and out.
        parameters: what else the gateway needs to know of the variant: model, scale, profile. Engines ignore them.
        max_batch: the most frames in one inference.
        warm_up: height and width of the frame that Triton infers before it calls the model ready.
        instances: copies of the model on each GPU, or on the CPU.
    """
    config = model_config_pb2.ModelConfig(
        name=variant,
        backend=BACKENDS[fmt],
        default_model_filename=MODEL_FILES[fmt],
        max_batch_size=max_batch,
    )
    shapes = input_shapes(pixel_format, *warm_up)
    frame_dims = [-1, -1, *shapes[INPUT_NAME][2:]]
    config.input.add(name=INPUT_NAME, data_type=model_config_pb2.TYPE_UINT8, dims=frame_dims)
    if COLOURS_NAME in shapes:
        config.input.add(name=COLOURS_NAME, data_type=model_config_pb2.TYPE_FP32, dims=shapes[COLOURS_NAME])
    config.output.add(name=OUTPUT_NAME, data_type=model_config_pb2.TYPE_UINT8, dims=frame_dims)
    config.instance_group.add(count=instances, kind=model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    for key, value in {**parameters, "pixel_format": pixel_format}.items():
        config.parameters[key].string_value = value
    # No dynamic batcher: the gateway forms the batches, and Triton's sometimes lets a request wait for half a second.
    inputs = config.model_warmup.add(name="one_frame", batch_size=1).inputs
    for declared in config.input:
        inputs[declared.name].data_type = declared.data_type
        inputs[declared.name].dims.extend(shapes[declared.name])
    inputs[INPUT_NAME].random_data = True
    if COLOURS_NAME in shapes:
        # Random bytes would be random floats: infinities, and denormal ones that take a CPU very long.
        inputs[COLOURS_NAME].zero_data = True
    return text_format.MessageToString(config)


def served_versions(config: str) -> list[int]:
    """The versions that a config.pbtxt names as those to serve; none if it leaves that to Triton."""
    return list(_parsed(config).version_policy.specific.versions)


def with_served_versions(config: str, versions: Sequence[int]) -> str:
    """A config.pbtxt by which Triton serves these versions, and no others."""
    parsed = _parsed(config)
    parsed.version_policy.Clear()
    parsed.version_policy.specific.versions.extend(sorted(versions))
    return text_format.MessageToString(parsed)


def same_but_for_versions(one: str, other: str) -> bool:
    """Whether two config.pbtxt differ in nothing but the versions to serve."""
    return _parsed(with_served_versions(one, [])) == _parsed(with_served_versions(other, []))


def _parsed(config: str) -> Any:
    return text_format.Parse(config, model_config_pb2.ModelConfig())
