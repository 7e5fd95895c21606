"""Normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every pixel, with a gain and a shift per channel."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """X (N, channels, H, W), normalised."""
        centred = x - x.mean(1, keepdim=True)
        variance = (centred**2).mean(1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.gain + self.shift
