"""The Haar wavelet transform, fixed or as a starting point for training."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def haar_filters() -> Tensor:
    """The four orthonormal 2x2 Haar filters LL, LH, HL and HH, as (4, 2, 2)."""
    low, high = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    return torch.stack([torch.outer(rows, columns) for rows in (low, high) for columns in (low, high)])


class HaarTransform(nn.Module):
    """(N, C, H, W) to (N, 4 * C, H / 2, W / 2): LL, LH, HL and HH of each channel in turn; H and W must be even."""

    filters: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("filters", haar_filters().repeat(channels, 1, 1)[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x."""
        return F.conv2d(x, self.filters, stride=2, groups=self.channels)


class Subband(nn.Module):
    """One wavelet band of every channel, with trainable filters: (N, channels, H, W) to (N, channels, H / 2, W / 2)."""

    def __init__(self, channels: int, band: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 2, 2, groups=channels, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(haar_filters()[band])

    def forward(self, x: Tensor) -> Tensor:
        """The band of x."""
        return self.conv(x)


class InverseSubband(nn.Module):
    """What one band adds to the image, with trainable filters: (N, channels, H, W) to (N, channels, 2 * H, 2 * W)."""

    def __init__(self, channels: int, band: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 2, 2, groups=channels, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(haar_filters()[band])

    def forward(self, x: Tensor) -> Tensor:
        """The share of band x."""
        return self.conv(x)
