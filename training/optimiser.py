"""Muon for kernels, Adam for everything else."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn


class Optimiser:
    """Muon (Jordan et al., 2024) for a network's kernels, as matrices; Adam for its biases and scales.

    Muon makes every direction of a kernel's update equally long. These networks' kernels are small, most of each is
    seldom moved by Adam in minutes of training; docs/decisions.md has what a minute of either brings.

    Both move zeros, at a rate of one, and what they became is added to the parameters at the rate that is asked for.
    Neither decays weights, so it is the same. The rate can be a tensor this way, as a recorded step needs it.

    Args:
        network: its parameters are updated in place.
        betas: Adam's.
        capturable: whether steps can be recorded as a CUDA graph; the network is on a GPU then.
    """

    def __init__(self, network: nn.Module, betas: tuple[float, float], *, capturable: bool = False) -> None:
        self._network = network
        parameters = list(network.parameters())
        kernels = [parameter for parameter in parameters if _is_kernel(parameter)]
        others = [parameter for parameter in parameters if not _is_kernel(parameter)]
        self._parameters = kernels + others
        matrices = [nn.Parameter(torch.zeros_like(kernel.flatten(1))) for kernel in kernels]
        vectors = [nn.Parameter(torch.zeros_like(other)) for other in others]
        self._moves = matrices + vectors
        if capturable:
            # The first steps are not recorded, and are to find the same state as those that are.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
        parts: list[torch.optim.Optimizer] = []
        if matrices:
            # Scaled to what Adam's updates would measure.
            parts.append(torch.optim.Muon(matrices, 1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
        if vectors:
            parts.append(torch.optim.Adam(vectors, 1.0, betas=betas, capturable=capturable))
        self._parts = parts

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> None:
        """Update the parameters by their gradients; a rate as a tensor has no dimensions."""
        for parameter, move in zip(self._parameters, self._moves, strict=True):
            move.zero_()
            move.grad = None if parameter.grad is None else parameter.grad.reshape(move.shape)
        for part in self._parts:
            part.step()
        for parameter, move in zip(self._parameters, self._moves, strict=True):
            parameter.add_((move * learning_rate).view(parameter.shape))

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
