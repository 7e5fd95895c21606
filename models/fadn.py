"""FADN, team P.AI.R (section 3.13): RFDN with gates instead of activations.

Four blocks distil features of four depths, which a 1x1 convolution fuses; inside, normalisation, a simple gate and
simplified channel attention (NAFNet's parts) replace activations and contrast attention.

Interpretation: the printed MACs of both scales say that a block costs exactly 12.75 * C^2 per pixel; the block below
does, and its parameters are 0.6 % under the printed ones. Other blocks would fit as well.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.attention import ChannelAttention, SimpleGate
from models.blocks.conv import conv3
from models.blocks.norm import ChannelNorm
from models.blocks.rlfb import LEAK
from models.spec import ModelSpec, Reported

_CHANNELS = {2: 16, 3: 40}
_BLOCKS = 4


class GatedDistillationBlock(nn.Module):
    """Half of the output distilled by a 1x1 convolution, half refined and gated: (N, channels, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.norm = ChannelNorm(channels)
        self.distill = nn.Conv2d(channels, half, 1)
        self.refine = conv3(channels)
        self.gate = nn.Sequential(ChannelAttention(channels), SimpleGate(), conv3(half))
        self.fuse = nn.Sequential(nn.Conv2d(channels, channels, 1), ChannelAttention(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        normal = self.norm(x)
        refined = self.gate(self.refine(normal) + normal)
        return self.fuse(torch.cat([self.distill(normal), refined], dim=1)) + x


class FADN(nn.Module):
    """FADN; there is no separate training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        channels = _CHANNELS[scale]
        self.scale = scale
        self.head = conv3(3, channels)
        self.blocks = nn.ModuleList(GatedDistillationBlock(channels) for _ in range(_BLOCKS))
        self.fuse = nn.Sequential(nn.Conv2d(_BLOCKS * channels, channels, 1), nn.LeakyReLU(LEAK), conv3(channels))
        self.tail = conv3(channels, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = y = self.head(x)
        depths: list[Tensor] = []
        for block in self.blocks:
            y = block(y)
            depths.append(y)
        return F.pixel_shuffle(self.tail(self.fuse(torch.cat(depths, dim=1)) + features), self.scale)


_NOTE = "the inside of its block is not in the report"

SPEC = ModelSpec(
    name="fadn",
    title="FADN",
    team="P.AI.R",
    section="3.13",
    idea="feature distillation with gates",
    build=FADN,
    reported={
        2: Reported(0.0212, 38.486, 34.65, 37.47, 0.8905, 28.31, 6.27, note=_NOTE),
        3: Reported(0.1280, 104.362, 32.55, 35.04, 0.8441, 30.03, 8.66, note=_NOTE),
    },
)
