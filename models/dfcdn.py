"""DFCDN, DFCDN Team (section 3.6): complement features distilled, then a cheap spatial attention.

Half of eight features pass two small convolutions, which make complement features; input and complement are distilled
by a 1x1 convolution, and a mask computed at half resolution weighs the result. Re-parameterised online in training.

Interpretation: the report states features, halves, one block and 16 attention channels. The layers below are the ones
whose parameters and MACs fit both scales to the last digit; which convolution has an activation, and the residual
around the block, are choices.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import OnlineConv
from models.spec import ModelSpec, Reported

_CHANNELS = 8
_ATTENTION = 16
_LEAK = 0.05


class DFCDN(nn.Module):
    """DFCDN in its training form.

    Shapes: float RGB in [0, 255], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        half = _CHANNELS // 2
        self.scale = scale
        self.head = nn.Sequential(OnlineConv(3, _CHANNELS), nn.LeakyReLU(_LEAK))
        self.complement1 = nn.Sequential(OnlineConv(half), nn.LeakyReLU(_LEAK))
        self.complement2 = nn.Sequential(OnlineConv(half), nn.LeakyReLU(_LEAK))
        self.distill = nn.Conv2d(2 * _CHANNELS, _CHANNELS, 1)
        self.enter = nn.Sequential(nn.Conv2d(_CHANNELS, _ATTENTION, 1), nn.LeakyReLU(_LEAK), nn.MaxPool2d(2))
        self.view = nn.Sequential(OnlineConv(_ATTENTION), OnlineConv(_ATTENTION))
        self.leave = nn.Conv2d(_ATTENTION, _CHANNELS, 1)
        self.tail = OnlineConv(_CHANNELS, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        first = self.complement1(features[:, : _CHANNELS // 2])
        second = self.complement2(first)
        distilled = self.distill(torch.cat([features, first, second], dim=1))
        view = self.view(self.enter(distilled))
        mask = torch.sigmoid(self.leave(F.interpolate(view, size=x.shape[-2:], mode="bilinear", align_corners=False)))
        return F.pixel_shuffle(self.tail(distilled * mask + features), self.scale)


SPEC = ModelSpec(
    name="dfcdn",
    title="DFCDN",
    team="DFCDN Team",
    section="3.6",
    idea="complement features, spatial attention",
    build=DFCDN,
    reported={
        2: Reported(0.0064, 6.0881, 34.63, 37.46, 0.8916, 4.670, 15.17),
        3: Reported(0.0075, 3.7011, 32.07, 34.63, 0.8371, 2.250, 22.64),
    },
    input_range=255.0,
)
