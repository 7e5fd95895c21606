"""PRFDN, team SEU_CNII (section 3.19): RFDN in parallel branches, merged and pruned.

Several small RFDN branches run side by side; their convolutions are merged block-diagonally into one convolution over
the concatenated channels, which is then pruned channel by channel and trained on. What follows is that merged network.

The shapes are those of the team's two published checkpoints: x2 began as four branches, x3 as two, though the report
says four for both. Concatenations that take turns between branches have become dense 1x1 convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.attention import SpatialAttention
from models.blocks.conv import conv3
from models.blocks.rlfb import LEAK
from models.spec import ModelSpec, Reported


@dataclass(frozen=True)
class _Config:
    copies: int
    """How often the frame's channels are repeated at the entrance."""
    features: int
    left: int
    """Channels that go past the shallow block."""
    shallow: ShallowConfig
    deep: tuple[DeepConfig, ...]
    fused: int
    """Channels that the deep blocks' answers are fused to; 0: there is one block, and nothing to fuse."""


@dataclass(frozen=True)
class ShallowConfig:
    """Channels of a `ShallowBlock`."""

    channels: int
    distilled: int
    regroup: bool
    """Whether a 1x1 convolution follows the concatenation."""
    attention: int


@dataclass(frozen=True)
class DeepConfig:
    """Channels of a `DeepBlock`."""

    channels: int
    distilled: int
    regrouped: int
    out: int
    attention: int


class ShallowBlock(nn.Module):
    """Residual feature distillation in one step: (N, channels, H, W) to the same."""

    def __init__(self, config: ShallowConfig) -> None:
        super().__init__()
        channels, distilled = config.channels, config.distilled
        self.distill = nn.Sequential(nn.Conv2d(channels, distilled, 1), nn.LeakyReLU(LEAK))
        self.refine = conv3(channels)
        self.activation = nn.LeakyReLU(LEAK)
        self.reduce = nn.Sequential(conv3(channels, distilled), nn.LeakyReLU(LEAK))
        regroup = [nn.Conv2d(2 * distilled, channels, 1)] if config.regroup else []
        fuse = nn.Conv2d(channels if config.regroup else 2 * distilled, channels, 1)
        self.fuse = nn.Sequential(*regroup, fuse, SpatialAttention(channels, config.attention, convs=3))

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        refined = self.activation(self.refine(x) + x)
        return self.fuse(torch.cat([self.distill(x), self.reduce(refined)], dim=1))


class DeepBlock(nn.Module):
    """Residual feature distillation in three steps: (N, channels, H, W) to (N, out, H, W)."""

    def __init__(self, config: DeepConfig) -> None:
        super().__init__()
        channels, distilled = config.channels, config.distilled
        self.distill = nn.ModuleList(nn.Conv2d(channels, distilled, 1) for _ in range(3))
        self.refine = nn.ModuleList(conv3(channels) for _ in range(3))
        self.reduce = conv3(channels, distilled)
        self.activation = nn.LeakyReLU(LEAK)
        self.fuse = nn.Sequential(
            nn.Conv2d(4 * distilled, config.regrouped, 1),
            nn.Conv2d(config.regrouped, config.out, 1),
            SpatialAttention(config.out, config.attention, convs=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        kept: list[Tensor] = []
        for distill, refine in zip(self.distill, self.refine, strict=True):
            kept.append(self.activation(distill(x)))
            x = self.activation(refine(x) + x)
        kept.append(self.activation(self.reduce(x)))
        return self.fuse(torch.cat(kept, dim=1))


_CONFIGS = {
    2: _Config(
        copies=4,
        features=23,
        left=5,
        shallow=ShallowConfig(channels=17, distilled=8, regroup=True, attention=4),
        deep=(DeepConfig(channels=22, distilled=11, regrouped=46, out=23, attention=5),),
        fused=0,
    ),
    3: _Config(
        copies=2,
        features=25,
        left=12,
        shallow=ShallowConfig(channels=12, distilled=6, regroup=False, attention=3),
        deep=(
            DeepConfig(channels=24, distilled=12, regrouped=50, out=25, attention=6),
            DeepConfig(channels=25, distilled=12, regrouped=50, out=25, attention=6),
        ),
        fused=50,
    ),
}


class PRFDN(nn.Module):
    """PRFDN after merging and pruning.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        config = _CONFIGS[scale]
        right = config.shallow.channels
        trunk = config.left + right
        self.scale = scale
        self.copies = config.copies
        self.head = conv3(3 * config.copies, config.features)
        self.left = nn.Conv2d(config.features, config.left, 1)
        self.right = nn.Sequential(nn.Conv2d(config.features, right, 1), ShallowBlock(config.shallow))
        self.blocks = nn.ModuleList(DeepBlock(block) for block in config.deep)
        depths = sum(block.out for block in config.deep)
        regroup = [nn.Conv2d(depths, config.fused, 1)] if config.fused else []
        self.fuse = nn.Sequential(
            *regroup,
            nn.Conv2d(config.fused or depths, config.left, 1),
            nn.LeakyReLU(LEAK),
            conv3(config.left),
        )
        self.skip = nn.Conv2d(trunk, config.left, 1)
        self.tail = conv3(config.left, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x.repeat(1, self.copies, 1, 1))
        trunk = y = torch.cat([self.left(features), self.right(features)], dim=1)
        depths: list[Tensor] = []
        for block in self.blocks:
            y = block(y)
            depths.append(y)
        return F.pixel_shuffle(self.tail(self.fuse(torch.cat(depths, dim=1)) + self.skip(trunk)), self.scale)


SPEC = ModelSpec(
    name="prfdn",
    title="PRFDN",
    team="SEU_CNII",
    section="3.19",
    idea="parallel RFDN branches, merged and pruned",
    build=PRFDN,
    reported={
        2: Reported(0.0299, 58.5454, 34.24, 37.10, 0.8858, 26.89, 4.84),
        3: Reported(0.0629, 55.0807, 31.85, 34.52, 0.8326, 19.05, 6.68),
    },
)
