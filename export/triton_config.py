"""config.pbtxt: what Triton is told about a model. Written from Triton's own protobuf, so what is written parses."""

from __future__ import annotations

from typing import Any, Literal

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as _model_config_pb2

from export.graph import INPUT_NAME, OUTPUT_NAME

model_config_pb2: Any = _model_config_pb2  # its names are made at import time, unseen by type checkers
Format = Literal["onnx", "tensorrt"]
BACKENDS: dict[Format, str] = {"onnx": "onnxruntime", "tensorrt": "tensorrt"}
MODEL_FILES: dict[Format, str] = {"onnx": "model.onnx", "tensorrt": "model.plan"}


def triton_config(
    variant: str,
    fmt: Format,
    *,
    parameters: dict[str, str],
    max_batch: int,
    warm_up: tuple[int, int],
    queue_size: int = 64,
    instances: int = 1,
) -> str:
    """The text of a variant's config.pbtxt.

    Args:
        variant: the model's name in the repository.
        fmt: what the model file is.
        parameters: what the gateway needs to know of the variant: model, scale and profile. Engines ignore them.
        max_batch: the most frames in one inference.
        warm_up: height and width of the frame that Triton infers before it calls the model ready.
        queue_size: the most requests that wait inside Triton. The gateway forms the batches; Triton's dynamic batcher
            passes them through without delay, and is there because only it bounds Triton's queue.
        instances: copies of the model on each GPU, or on the CPU.
    """
    config = model_config_pb2.ModelConfig(
        name=variant,
        backend=BACKENDS[fmt],
        default_model_filename=MODEL_FILES[fmt],
        max_batch_size=max_batch,
    )
    config.input.add(name=INPUT_NAME, data_type=model_config_pb2.TYPE_UINT8, dims=[-1, -1, 3])
    config.output.add(name=OUTPUT_NAME, data_type=model_config_pb2.TYPE_UINT8, dims=[-1, -1, 3])
    config.instance_group.add(count=instances, kind=model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    policy = config.dynamic_batching.default_queue_policy
    policy.max_queue_size = queue_size
    config.dynamic_batching.max_queue_delay_microseconds = 0
    frame = config.model_warmup.add(name="one_frame", batch_size=1).inputs[INPUT_NAME]
    frame.data_type = model_config_pb2.TYPE_UINT8
    frame.dims.extend([*warm_up, 3])
    frame.random_data = True
    return text_format.MessageToString(config)
