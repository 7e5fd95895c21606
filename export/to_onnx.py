"""A served graph as ONNX, by torch's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx
import torch

from export.graph import COLOURS_NAME, INPUT_NAME, OUTPUT_NAME, ServedGraph, input_shapes

OPSET = 20  # the first with Gelu, which engines fuse better than its parts
_LARGEST_SIDE = 4096


def to_onnx(graph: ServedGraph, *, batchable: bool = True) -> onnx.ModelProto:
    """The checked ONNX model, with height, width and, unless it is not `batchable`, batch dynamic.

    Its inputs are those of `graph.forward`, by name.

    Raises:
        onnx.checker.ValidationError: the exporter made something invalid.
    """
    examples = {
        name: torch.zeros((2 if batchable else 1, *shape), dtype=torch.uint8 if name == INPUT_NAME else torch.float32)
        for name, shape in input_shapes(graph.pixel_format, 48, 96).items()
    }
    dim = torch.export.Dim
    if graph.pixel_format == "rgb24":
        names = ("height", "width")
        sides = {1: dim("height", min=16, max=_LARGEST_SIDE), 2: dim("width", min=16, max=_LARGEST_SIDE)}
    else:
        # In halves, which make an even frame.
        names = ("rows", "width")
        sides = {
            1: 3 * dim("half_height", min=8, max=_LARGEST_SIDE // 2),
            2: 2 * dim("half_width", min=8, max=_LARGEST_SIDE // 2),
        }
    batch = {0: dim("batch", min=1, max=64)} if batchable else {}
    dynamic = {INPUT_NAME: batch | sides, COLOURS_NAME: batch}
    # The exporter reports its steps on standard output and warns about packages we do not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            tuple(examples.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=[OUTPUT_NAME],
            dynamic_shapes={name: dynamic[name] for name in examples},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter writes its own arithmetic as dimension names; servers and people want plain ones.
    for value, ending in ((model.graph.input[0], ""), (model.graph.output[0], "_out")):
        for dimension, name in zip(value.type.tensor_type.shape.dim[1:3], names, strict=True):
            dimension.dim_param = name + ending
    # Engines infer the shapes in between themselves, and rightly: for a one-sided DFT the exporter is wrong.
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model
