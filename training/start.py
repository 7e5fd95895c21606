"""Where training starts: the last convolution solved by least squares, before the first step.

Most of the report's networks have no skip from the frame to the output. From random weights they need thousands of
steps to become as good as bicubic interpolation; the report's teams had days. But the last convolution is linear, and
given what the random layers before it make of some batches, its best kernel is the solution of a small linear system.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import EdgeConv, OnlineConv, RepVGGConv, WideConv, bias_of

_RIDGE = 1e-6
_ROWS = 40_000


class _Tap:
    """Reads a layer's input, and lets its output be differentiated by."""

    def __init__(self, layer: nn.Module) -> None:
        self.input = torch.empty(0)
        self.output = torch.empty(0)
        self._handle = layer.register_forward_hook(self._hook)

    def _hook(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        self.input = inputs[0].detach()
        self.output = output.detach().requires_grad_()
        return self.output

    def close(self) -> None:
        self._handle.remove()


def solve_last_convolution(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], input_range: float) -> bool:
    """Replace the weights of the network's last convolution by the least-squares solution on some batches.

    Args:
        network: in training form; changed in place.
        batches: (LR, HR), float RGB in [0, 1].
        input_range: of the network.

    Returns:
        Whether it was done: the last convolution's output must reach the network's by moving values and adding to them.
    """
    batches = list(batches)
    layer = _last_convolution(network, batches[0][0] * input_range)
    if layer is None:
        return False
    kernel = (layer if isinstance(layer, nn.Conv2d) else layer.conv3).weight.shape[-1]
    biased = (layer.bias is not None) if isinstance(layer, nn.Conv2d) else layer.kernel_and_bias()[1] is not None
    gram: Tensor | None = None
    cross: Tensor | None = None
    tap = _Tap(layer)
    network.train()
    for lr, hr in batches:
        output = network(lr * input_range)
        # The way from the layer to the output moves values, so its transpose brings what is missing there back here.
        (missing,) = torch.autograd.grad(output, tap.output, hr * input_range - output.detach())
        target = (tap.output.detach() + missing).flatten(2).transpose(1, 2).flatten(0, 1).double()
        inputs = F.unfold(tap.input, kernel, padding=kernel // 2).transpose(1, 2).flatten(0, 1).double()
        # In squared error a few hard edges would rule; each patch counts by what bicubic leaves of it.
        enlarged = F.interpolate(lr, size=hr.shape[-2:], mode="bicubic", align_corners=False)
        weight = (enlarged - hr).square().mean((1, 2, 3)).add(1e-6).rsqrt().double()
        weight = weight.repeat_interleave(len(inputs) // len(lr))[:, None]
        if biased:
            inputs = F.pad(inputs, (0, 1), value=1.0)
        inputs, target = inputs * weight, target * weight
        if len(inputs) > _ROWS:
            chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[:_ROWS]
            inputs, target = inputs[chosen], target[chosen]
        gram = inputs.T @ inputs if gram is None else gram + inputs.T @ inputs
        cross = inputs.T @ target if cross is None else cross + inputs.T @ target
    tap.close()
    assert gram is not None
    assert cross is not None
    # Features differ in size by orders of magnitude: each is scaled to one before the ridge is added.
    size = gram.diagonal().sqrt().clamp_min(1e-12)
    scaled = gram / (size[:, None] * size) + _RIDGE * torch.eye(len(gram), dtype=torch.float64)
    solution = (torch.linalg.solve(scaled, cross / size[:, None]) / size[:, None]).T.float()
    bias = solution[:, -1] if biased else None
    weights = solution[:, :-1] if biased else solution
    with torch.no_grad():
        assign(layer, weights.reshape(len(weights), -1, kernel, kernel), bias)
    return True


_Last = nn.Conv2d | RepVGGConv | EdgeConv | OnlineConv | WideConv


def _last_convolution(network: nn.Module, x: Tensor) -> _Last | None:
    """The last layer to run of those that the output depends on by moving values only."""
    order: list[_Last] = []

    def note(layer: nn.Module, inputs: object, output: object) -> None:
        assert isinstance(layer, _Last)
        order.append(layer)

    handles = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, _Last)]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    for layer in reversed(order):
        tap = _Tap(layer)
        output = network(x)
        probe = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        (back,) = torch.autograd.grad(output, tap.output, probe)
        tap.close()
        if back.numel() >= output.numel() and torch.allclose(back.square().sum(), probe.square().sum(), rtol=1e-4):
            return layer
    return None


def assign(layer: _Last, kernel: Tensor, bias: Tensor | None) -> None:
    """Make `layer` compute the convolution of `kernel` (out, in, k, k) and `bias` (out,)."""
    if isinstance(layer, nn.Conv2d):
        layer.weight.copy_(kernel)
        if bias is not None:
            bias_of(layer).copy_(bias)
        return
    if isinstance(layer, WideConv):
        _factorise(layer, kernel, bias)
        return
    now, now_bias = layer.kernel_and_bias()
    gain = layer.scales[0][:, None, None, None] if isinstance(layer, OnlineConv) else 1.0
    layer.conv3.weight.add_((kernel - now) / gain)
    if bias is not None and now_bias is not None:
        bias_of(layer.conv3).add_(bias - now_bias)


def _factorise(layer: WideConv, kernel: Tensor, bias: Tensor | None) -> None:
    """Split a kernel into the block's 3x3 and 1x1: the singular vectors take as many of the wide channels as needed."""
    assert bias is not None
    layer.conv1.weight.zero_()
    now, _ = layer.kernel_and_bias()  # what the residual contributes
    left, values, right = torch.linalg.svd((kernel - now).flatten(1), full_matrices=False)
    rank = len(values)
    layer.conv3.weight[:rank].copy_((values.sqrt()[:, None] * right).reshape(rank, *kernel.shape[1:]))
    layer.conv1.weight[:, :rank, 0, 0].copy_(left * values.sqrt())
    bias_of(layer.conv1).copy_(bias - layer.conv1.weight[..., 0, 0] @ bias_of(layer.conv3))
    if layer.projection is not None:
        bias_of(layer.conv1).sub_(bias_of(layer.projection))
