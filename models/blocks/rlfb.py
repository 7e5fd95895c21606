"""The residual local feature block of RLFN (Kong et al., CVPRW 2022)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.blocks.attention import SpatialAttention

LEAK = 0.05
"""Slope of the leaky ReLUs of the RFDN and RLFN families."""


class ResidualLocalFeatureBlock(nn.Module):
    """Three 3x3 convolutions, a local residual, a 1x1 fusion and, where asked for, spatial attention.

    Shapes: (N, channels, H, W) to the same.

    Args:
        channels: of the input.
        conv: makes each 3x3 convolution from a number of channels.
        attention: channels of the attention's view; None for no attention.
    """

    def __init__(self, channels: int, conv: Callable[[int], nn.Module], attention: int | None) -> None:
        super().__init__()
        layers = (layer for _ in range(3) for layer in (conv(channels), nn.LeakyReLU(LEAK)))
        self.body = nn.Sequential(*layers)
        self.fuse = nn.Conv2d(channels, channels, 1)
        self.attention = nn.Identity() if attention is None else SpatialAttention(channels, attention, convs=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        return self.attention(self.fuse(self.body(x) + x))
