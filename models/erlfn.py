"""ERLFN, team Antins_CV (section 3.10): RLFN, made smaller and re-parameterised.

Two residual local feature blocks between a head and a fusion convolution, with a long skip. At x2 the blocks have 12
channels and no attention, at x3 27 channels and spatial attention. In training every 3x3 of a block is an
expand-squeeze block.

The report's Table 1 prints the parameters and MACs of the 12-channel network at x3 as well; its Table 2, its PSNR and
its runtime are those of the 27-channel one, which is what x3 is here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import ExpandSqueezeConv
from models.blocks.rlfb import ResidualLocalFeatureBlock
from models.spec import ModelSpec, PrintedConfiguration, Reported

_BLOCKS = 2


@dataclass(frozen=True)
class _Config:
    channels: int
    attention: int | None


_SMALL = _Config(channels=12, attention=None)
_CONFIGS = {2: _SMALL, 3: _Config(channels=27, attention=16)}


class ERLFN(nn.Module):
    """ERLFN in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).

    Args:
        scale: 2 or 3.
        config: channels and attention; by default those of the scale.
    """

    def __init__(self, scale: int, config: _Config | None = None) -> None:
        super().__init__()
        config = config or _CONFIGS[scale]
        channels = config.channels
        self.scale = scale
        self.head = conv3(3, channels)
        blocks = (ResidualLocalFeatureBlock(channels, ExpandSqueezeConv, config.attention) for _ in range(_BLOCKS))
        self.body = nn.Sequential(*blocks, conv3(channels))
        self.tail = conv3(channels, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(features) + features), self.scale)


SPEC = ModelSpec(
    name="erlfn",
    title="ERLFN",
    team="Antins_CV",
    section="3.10",
    idea="a small RLFN, re-parameterised",
    build=ERLFN,
    reported={
        2: Reported(0.0111, 22.9174, 34.71, 37.56, 0.8921, 9.470, 11.25),
        3: Reported(
            0.0127,
            11.6785,
            32.63,
            35.21,
            0.8457,
            4.600,
            23.44,
            printed=PrintedConfiguration(lambda: ERLFN(3, _SMALL), 1280, 720, "the 12-channel network built for x3"),
        ),
    },
)
