"""Touch_Fish's network (section 3.17): later features decide how much of earlier ones passes.

Each "Attli" block refines its input by three convolutions and makes of the result a mask for the input itself; two
convolutions and a long skip close the trunk. In training every 3x3 is 3x3 + 1x1 + identity.

Interpretation: the printed numbers of both scales fix the layers, not the wiring of the mask; here a block's mask
multiplies the block's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import RepVGGConv
from models.spec import ModelSpec, Reported


@dataclass(frozen=True)
class _Config:
    channels: int
    blocks: int


_CONFIGS = {2: _Config(channels=24, blocks=3), 3: _Config(channels=32, blocks=4)}


class AttliBlock(nn.Module):
    """X times a mask made from x refined: (N, channels, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = (layer for _ in range(3) for layer in (RepVGGConv(channels), nn.ReLU()))
        self.refine = nn.Sequential(*layers, nn.Conv2d(channels, channels, 1))
        self.mask = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mask x."""
        return x * torch.sigmoid(self.mask(self.refine(x)))


class TouchFish(nn.Module):
    """Touch_Fish's network in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        config = _CONFIGS[scale]
        channels = config.channels
        self.scale = scale
        self.head = RepVGGConv(3, channels)
        blocks = (AttliBlock(channels) for _ in range(config.blocks))
        self.body = nn.Sequential(*blocks, RepVGGConv(channels), RepVGGConv(channels))
        self.tail = RepVGGConv(channels, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(features) + features), self.scale)


SPEC = ModelSpec(
    name="touch_fish",
    title="Touch_Fish",
    team="Touch_Fish",
    section="3.17",
    idea="later features mask earlier ones",
    build=TouchFish,
    reported={
        2: Reported(0.0641, 132.5777, 34.28, 37.14, 0.8862, 26.31, 5.03),
        3: Reported(0.1465, 134.7748, 32.67, 35.31, 0.8468, 19.86, 11.55),
    },
)
