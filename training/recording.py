"""A training step as a CUDA graph.

A step of these networks is some hundred kernels that take microseconds each. Launched one by one, a GPU waits for the
next one most of the time; a graph is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


class Recording:
    """`step` for inputs of these shapes, recorded without being run; it must have been run before, on the side stream.

    Args:
        step: takes the inputs and gives one tensor; all that changes from step to step lies in tensors.
        inputs: on the GPU, of the shapes, dtypes and memory formats of those to come.
    """

    def __init__(self, step: Callable[..., Tensor], *inputs: Tensor) -> None:
        self._inputs = [given.clone() for given in inputs]
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(self._graph):
            self._answer = step(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the step; the answer is good until the next one."""
        for still, given in zip(self._inputs, inputs, strict=True):
            still.copy_(given)
        self._graph.replay()
        return self._answer


def on_side_stream(step: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Run the step where steps to be recorded are first run: not on the default stream."""
    side = _side_stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        answer = step(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    return answer


@cache
def _side_stream() -> torch.cuda.Stream:
    """Always the same: what was allocated on a stream is only used again there."""
    return torch.cuda.Stream()
