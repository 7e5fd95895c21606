"""LRSRN, team z6 (section 3.8): a plain stack of 32-channel convolutions, trained very wide.

A head, four body convolutions, the head's features added, a convolution to the output's channels, a pixel shuffle. In
training a re-parameterised convolution has 256 channels between a 3x3 and a 1x1.

The activation is ReLU for x2 and GELU for x3, and at x3 head and tail are re-parameterised too, as in the team's code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import WideConv
from models.spec import ModelSpec, Reported

_CHANNELS = 32
_BODY_CONVS = 4


@dataclass(frozen=True)
class _Config:
    activation: type[nn.Module]
    wide_ends: bool


_CONFIGS = {2: _Config(nn.ReLU, wide_ends=False), 3: _Config(nn.GELU, wide_ends=True)}


class LRSRN(nn.Module):
    """LRSRN in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        config = _CONFIGS[scale]
        self.scale = scale
        self.head = nn.Sequential(_end(3, _CHANNELS, wide=config.wide_ends), config.activation())
        body = (layer for _ in range(_BODY_CONVS) for layer in (WideConv(_CHANNELS), config.activation()))
        self.body = nn.Sequential(*body)
        self.tail = _end(_CHANNELS, 3 * scale**2, wide=config.wide_ends)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(features) + features), self.scale)


def _end(in_channels: int, out_channels: int, *, wide: bool) -> nn.Module:
    return WideConv(in_channels, out_channels, projection=True) if wide else conv3(in_channels, out_channels)


SPEC = ModelSpec(
    name="lrsrn",
    title="LRSRN",
    team="z6",
    section="3.8",
    idea="plain stack, trained 256 channels wide",
    build=LRSRN,
    reported={
        2: Reported(0.0414, 85.7309, 35.02, 37.76, 0.8948, 11.19, 12.87),
        3: Reported(0.0457, 41.9365, 32.59, 35.05, 0.8446, 5.470, 20.90),
    },
)
