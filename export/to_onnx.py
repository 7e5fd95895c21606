"""A served graph as ONNX, by torch's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx
import torch

from export.graph import INPUT_NAME, OUTPUT_NAME, ServedGraph

OPSET = 20  # the first with Gelu, which engines fuse better than its parts
_LARGEST_SIDE = 4096


def to_onnx(graph: ServedGraph, *, batchable: bool = True) -> onnx.ModelProto:
    """The checked ONNX model, with height, width and, unless it is not `batchable`, batch dynamic.

    Raises:
        onnx.checker.ValidationError: the exporter made something invalid.
    """
    frames = torch.randint(0, 256, (2 if batchable else 1, 48, 96, 3), dtype=torch.uint8)
    dim = torch.export.Dim
    sides = {1: dim("height", min=16, max=_LARGEST_SIDE), 2: dim("width", min=16, max=_LARGEST_SIDE)}
    batch = {0: dim("batch", min=1, max=64)} if batchable else {}
    # The exporter reports its steps on standard output and warns about packages we do not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (frames,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes={INPUT_NAME: batch | sides},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter writes its own arithmetic as dimension names; servers and people want plain ones.
    dimensions = model.graph.output[0].type.tensor_type.shape.dim
    dimensions[1].dim_param, dimensions[2].dim_param = "height_out", "width_out"
    # Engines infer the shapes in between themselves, and rightly: for a one-sided DFT the exporter is wrong.
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model
