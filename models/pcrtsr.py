"""PCRTSR, team ECNU_SR (section 3.11): partial convolutions at half resolution.

The frame is pixel-unshuffled by 2 and passes three stages of partial convolution blocks, each with a residual: a 3x3 on
a quarter of the channels, then two 1x1 with a PReLU between.

Interpretation: the last convolution is 1x1 (the text says 3x3, the printed parameters fit 1x1 alone), and a block has
no residual of its own.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import PartialConv, conv3
from models.blocks.resample import crop, pad_to_multiple
from models.spec import ModelSpec, Reported

_CHANNELS = 64
_STAGES = (2, 4, 2)


class PartialConvStage(nn.Module):
    """Blocks of a partial convolution and two 1x1, with one residual: (N, channels, H, W) to the same."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    PartialConv(channels),
                    nn.Conv2d(channels, 2 * channels, 1),
                    nn.PReLU(2 * channels),
                    nn.Conv2d(2 * channels, channels, 1),
                )
                for _ in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        return self.blocks(x) + x


class PCRTSR(nn.Module):
    """PCRTSR; there is no separate training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = conv3(12, _CHANNELS)
        self.body = nn.Sequential(*(PartialConvStage(_CHANNELS, blocks) for blocks in _STAGES))
        self.tail = nn.Conv2d(_CHANNELS, 3 * (2 * scale) ** 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        features = self.body(self.head(F.pixel_unshuffle(pad_to_multiple(x, 2), 2)))
        y = F.pixel_shuffle(self.tail(features), 2 * self.scale)
        return crop(y, height * self.scale, width * self.scale)


SPEC = ModelSpec(
    name="pcrtsr",
    title="PCRTSR",
    team="ECNU_SR",
    section="3.11",
    idea="partial convolutions at half resolution",
    build=PCRTSR,
    reported={
        2: Reported(0.1623, 83.2094, 35.30, 37.95, 0.8971, 25.23, 10.37),
        3: Reported(0.1662, 37.8667, 32.64, 35.17, 0.8458, 10.75, 15.39),
    },
)
