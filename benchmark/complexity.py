"""Parameters and multiply-accumulates of a network, counted without computing: on the meta device.

Two counts, because the report's "FLOPs" are the organisers': convolution and linear *modules* by their MACs without
bias, plus one for every output element of a ReLU-like *module*, and nothing for what is called as a function. The true
count is of every convolution and matrix product that runs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_RELU_LIKE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU)
PROTOCOL_SIZES = {2: (1920, 1080), 3: (1280, 720)}
"""Height and width of the organisers' input tensor by scale: they pass 1080p and 720p as portrait."""


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one frame."""

    params: int
    macs: int
    """Multiply-accumulates of all convolutions and matrix products."""
    macs_official: int
    """The organisers' count."""


def complexity(network: nn.Module, height: int, width: int) -> Complexity:
    """Count `network` (deployed form) on one RGB frame of height x width pixels."""
    network = copy.deepcopy(network).to("meta").eval()
    official = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal official
        if isinstance(module, nn.Conv2d):
            official += module.weight[0].numel() * output.numel()
        elif isinstance(module, nn.ConvTranspose2d):
            official += module.weight[0].numel() * output.numel() // module.stride[0] // module.stride[1]
        elif isinstance(module, nn.Linear):
            official += module.in_features * output.numel()
        elif isinstance(module, _RELU_LIKE):
            official += output.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network(torch.empty(1, 3, height, width, device="meta"))
    params = sum(parameter.numel() for parameter in network.parameters())
    return Complexity(params, flops.get_total_flops() // 2, official)
