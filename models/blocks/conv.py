"""Convolutions beyond the plain one."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def conv3(in_channels: int, out_channels: int | None = None, *, bias: bool = True) -> nn.Conv2d:
    """The plain 3x3 convolution with zero padding that nearly every network here is made of."""
    return nn.Conv2d(in_channels, out_channels or in_channels, 3, padding=1, bias=bias)


class PartialConv(nn.Module):
    """A 3x3 convolution of the first channels only; the others pass (FasterNet, Chen et al., CVPR 2023)."""

    def __init__(self, channels: int, share: int = 4) -> None:
        super().__init__()
        self.sizes = (channels // share, channels - channels // share)
        self.conv = conv3(self.sizes[0])

    def forward(self, x: Tensor) -> Tensor:
        """X (N, channels, H, W) with the first 1 / share of its channels convolved."""
        first, rest = x.split(self.sizes, dim=1)
        return torch.cat([self.conv(first), rest], dim=1)


class AssembledConv(nn.Module):
    """A 3x3 convolution whose kernel is mixed for each frame, and for each output channel, from a basis (AsConvSR).

    Shapes: frames (N, channels, H, W) and coefficients (N, channels, basis) to (N, channels, H, W).

    Args:
        channels: in and out.
        basis: kernels to mix from, per output channel.
    """

    def __init__(self, channels: int, basis: int) -> None:
        super().__init__()
        kernels = [conv3(channels, bias=False).weight.detach() for _ in range(basis)]
        self.basis = nn.Parameter(torch.stack(kernels))

    def forward(self, x: Tensor, coefficients: Tensor) -> Tensor:
        """Convolve every frame with its own kernel: the frames become the groups of one convolution."""
        frames, channels, height, width = x.shape
        kernels = torch.einsum("noe,eoihw->noihw", coefficients, self.basis)
        kernels = kernels.reshape(frames * channels, channels, 3, 3)
        together = x.reshape(1, frames * channels, height, width)
        return F.conv2d(together, kernels, padding=1, groups=frames).reshape(x.shape)
