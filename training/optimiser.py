"""Muon for kernels, Adam for everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimiser:
    """Muon (Jordan et al., 2024) for a network's kernels, as matrices; Adam for its biases and scales.

    Muon makes every direction of a kernel's update equally long. These networks' kernels are small, most of each is
    seldom moved by Adam in minutes of training; docs/decisions.md has what a minute of either brings.

    Args:
        network: its parameters are updated in place.
        learning_rate: of both; Muon's is scaled to what Adam's updates would measure.
        betas: Adam's.
    """

    def __init__(self, network: nn.Module, learning_rate: float, betas: tuple[float, float]) -> None:
        self._network = network
        self._kernels = [parameter for parameter in network.parameters() if _is_kernel(parameter)]
        others = [parameter for parameter in network.parameters() if not _is_kernel(parameter)]
        self._matrices = [nn.Parameter(kernel.detach().flatten(1)) for kernel in self._kernels]
        parts: list[torch.optim.Optimizer] = []
        if self._matrices:
            parts.append(
                torch.optim.Muon(self._matrices, learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            )
        if others:
            parts.append(torch.optim.Adam(others, learning_rate, betas=betas))
        self._parts = parts

    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.data = kernel.detach().flatten(1)  # a view: the kernel may have moved to another device
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._network.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """For a checkpoint."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """From a checkpoint."""
        for part, each in zip(self._parts, state, strict=True):
            part.load_state_dict(each)


def _is_kernel(parameter: Tensor) -> bool:
    """Whether it is a convolution's, and as a matrix more than one row or column."""
    return parameter.ndim == 4 and len(parameter) > 1 and parameter[0].numel() > 1
