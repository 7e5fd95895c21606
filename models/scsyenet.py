"""SCSYENet, team Multimedia (section 3.9): branches multiplied, not only added.

Two quadratic units multiply the outputs of two branches of edge-oriented convolutions and add a bias; the frame itself
joins the features before the last convolution and the pixel shuffle.

Interpretation: the fusions' bias comes from the team's later SYENet; the frame enters as it is, without subtracting a
mean. SYENet scales the second factors by 0.1. Here the first unit's is scaled by 10: a product of two small numbers is
smaller than both, and what the units add to the frame would be lost beside it (docs/decisions.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import EdgeConv, Scaled
from models.spec import ModelSpec, Reported

_CHANNELS = 16
_FACTOR = 10.0  # makes the units' products about as large as the frame


class QuadraticUnit(nn.Module):
    """The product of two branches, plus a bias per channel: (N, in_channels, H, W) to (N, channels, H, W)."""

    def __init__(self, first: nn.Module, second: nn.Module, channels: int) -> None:
        super().__init__()
        self.first = first
        self.second = second
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the branches of x."""
        return self.first(x) * self.second(x) + self.bias


class SCSYENet(nn.Module):
    """SCSYENet in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        deep = nn.Sequential(EdgeConv(3, _CHANNELS), nn.PReLU(_CHANNELS), EdgeConv(_CHANNELS))
        self.unit1 = QuadraticUnit(deep, Scaled(EdgeConv(3, _CHANNELS), _FACTOR), _CHANNELS)
        self.unit2 = QuadraticUnit(EdgeConv(_CHANNELS), EdgeConv(_CHANNELS), _CHANNELS)
        self.tail = EdgeConv(_CHANNELS + 3, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.unit2(self.unit1(x))
        return F.pixel_shuffle(self.tail(torch.cat([features, x], dim=1)), self.scale)


SPEC = ModelSpec(
    name="scsyenet",
    title="SCSYENet",
    team="Multimedia",
    section="3.9",
    idea="branches multiplied, edge-oriented convolutions",
    build=SCSYENet,
    reported={
        2: Reported(0.0100, 20.4125, 34.85, 37.61, 0.8926, 7.300, 14.09),
        3: Reported(0.0125, 11.4361, 32.33, 34.83, 0.8398, 3.560, 21.55),
    },
)
