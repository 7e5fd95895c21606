"""ELIS, team KCML2 (section 3.22): grouped convolutions with spatial attention.

Five blocks of a grouped 3x3, a 1x1 and enhanced spatial attention; a second, shallow path from the frame joins before
two 1x1 convolutions and the upsampling.

Interpretation: groups, the attention's width and the joining layers are chosen so that the parameters meet the printed
ones exactly and the MACs within 1 %; the ReLUs are not counted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.attention import SpatialAttention
from models.blocks.conv import conv3
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_CHANNELS, _SIDE_CHANNELS = 32, 16
_GROUPS = 4
_BLOCKS = 5


class SplitBlock(nn.Module):
    """A grouped 3x3, a 1x1, attention: (N, channels, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=_GROUPS)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.attention = SpatialAttention(channels, channels // 4, convs=3)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        return self.attention(self.mix(F.relu(self.grouped(x))))


class ELIS(nn.Module):
    """ELIS; there is no separate training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.deep = nn.Sequential(conv3(3, _CHANNELS), *(SplitBlock(_CHANNELS) for _ in range(_BLOCKS)))
        self.side = conv3(3, _SIDE_CHANNELS)
        self.join = nn.Conv2d(_CHANNELS + _SIDE_CHANNELS, _CHANNELS, 1)
        self.tail = nn.Sequential(nn.Conv2d(_CHANNELS, _CHANNELS, 1), conv3(_CHANNELS, 3 * scale**2))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        joined = F.relu(self.join(torch.cat([self.deep(x), self.side(x)], dim=1)))
        return F.pixel_shuffle(self.tail(joined), self.scale)


SPEC = ModelSpec(
    name="elis",
    title="ELIS",
    team="KCML2",
    section="3.22",
    idea="grouped convolutions, spatial attention",
    build=ELIS,
    reported={
        2: Reported(
            0.0392, 57.2567, 34.24, 37.10, 0.8851, 39.17, 3.99, note="how its parts are joined is not in the report"
        )
    },
    recipe=two_stages("charbonnier", "charbonnier"),
)
