"""Attention and gating: blocks that multiply features by what they make of the same features."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class SpatialAttention(nn.Module):
    """Enhanced spatial attention: a mask from a small, pooled view of the features (ESA).

    The view is made by a 1x1 convolution to `features` channels, a 3x3 with stride 2, a max pool and `convs` 3x3
    convolutions, then enlarged bilinearly. RFDN has three of them with ReLU between (Liu et al., 2020), RLFN one (Kong
    et al., 2022), R2CNet's L-ESA one after a larger pool.

    Shapes: (N, channels, H, W) to the same; maps too small for the pool are replicated up to its size.

    Args:
        channels: of the input.
        features: channels of the view.
        convs: 3x3 convolutions after the pool.
        pool: side and stride of the max pool.
    """

    def __init__(self, channels: int, features: int, *, convs: int, pool: tuple[int, int] = (7, 3)) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, features, 1)
        self.stride = nn.Conv2d(features, features, 3, stride=2)
        self.pool = nn.MaxPool2d(*pool)
        # A convolution with stride 2 gives k values from 2 * k + 1.
        self.smallest = 2 * pool[0] + 1
        layers: list[nn.Module] = []
        for _ in range(convs - 1):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.ReLU()]
        self.view = nn.Sequential(*layers, nn.Conv2d(features, features, 3, padding=1))
        self.bypass = nn.Conv2d(features, features, 1)
        self.expand = nn.Conv2d(features, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """X times its mask."""
        reduced = self.reduce(x)
        view = self.view(self.pool(self.stride(_pad_to_least(reduced, self.smallest))))
        view = F.interpolate(view, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.expand(view + self.bypass(reduced)))


class ChannelAttention(nn.Module):
    """Simplified channel attention: each channel times a linear function of all channels' means (SCA of NAFNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """X (N, channels, H, W), weighed."""
        return x * self.weights(x.mean((2, 3), keepdim=True))


class ContrastAttention(nn.Module):
    """Contrast-aware channel attention: weights from each channel's mean plus standard deviation (CCA of IMDN)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """X (N, channels, H, W), weighed."""
        mean = x.mean((2, 3), keepdim=True)
        deviation = ((x - mean) ** 2).mean((2, 3), keepdim=True).sqrt()
        return x * self.weights(mean + deviation)


class SimpleGate(nn.Module):
    """One half of the channels times the other (SG of NAFNet): (N, C, H, W) to (N, C / 2, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The product of the halves."""
        first, second = x.chunk(2, dim=1)
        return first * second


def _pad_to_least(x: Tensor, side: int) -> Tensor:
    """X with its last row and column repeated until H and W are at least `side`."""
    height, width = x.shape[-2:]
    # Unconditional, so that an exported graph works for every size.
    missing = (0, torch.sym_max(0, side - width), 0, torch.sym_max(0, side - height))
    return F.pad(x, missing, mode="replicate")  # pyright: ignore[reportArgumentType] - sym_max gives the int it was given
