"""R2CNet, team R.I.P. ShopeeVideo (section 3.12): residual blocks inside residual blocks, at half resolution.

Two blocks, 64 channels outside and 32 inside, each hold four basic residual blocks and a light spatial attention; the
first halves the resolution, a pixel shuffle brings it back. In training a batch normalisation follows every
convolution.

Interpretation: the printed numbers fit a 1x1 into the block (with its stride), 1x1 out of it and a 3x3 on the block's
skip path. Attention and the last convolution have no batch normalisation.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.attention import SpatialAttention
from models.blocks.conv import conv3
from models.blocks.rep import ConvBN
from models.blocks.resample import crop
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_OUTSIDE, _INSIDE = 64, 32
_BASIC_BLOCKS = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a residual: (N, channels, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvBN(channels, channels, 3), nn.ReLU(), ConvBN(channels, channels, 3))
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        return self.activation(self.body(x) + x)


class R2CBlock(nn.Module):
    """Basic blocks on half of the channels, attention, and a convolved skip.

    Shapes: (N, outside, H, W) to (N, outside, H / stride, W / stride), rounded up.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.enter = ConvBN(_OUTSIDE, _INSIDE, 1, stride=stride)
        self.blocks = nn.Sequential(*(BasicBlock(_INSIDE) for _ in range(_BASIC_BLOCKS)))
        self.attention = SpatialAttention(_INSIDE, 16, convs=1, pool=(11, 7))
        self.leave = ConvBN(_INSIDE, _OUTSIDE, 1)
        self.skip = ConvBN(_INSIDE, _OUTSIDE, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        entered = self.enter(x)
        return self.leave(self.attention(self.blocks(entered))) + self.skip(entered)


class R2CNet(nn.Module):
    """R2CNet in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = ConvBN(3, _OUTSIDE, 3)
        self.body = nn.Sequential(R2CBlock(stride=2), R2CBlock(stride=1), ConvBN(_OUTSIDE, 4 * _OUTSIDE, 3))
        self.fuse = ConvBN(_OUTSIDE, _OUTSIDE, 3)
        self.tail = conv3(_OUTSIDE, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        features = self.head(x)
        deep = crop(F.pixel_shuffle(self.body(features), 2), height, width)
        return F.pixel_shuffle(self.tail(self.fuse(deep) + features), self.scale)


SPEC = ModelSpec(
    name="r2cnet",
    title="R2CNet",
    team="R.I.P. ShopeeVideo",
    section="3.12",
    idea="residual blocks in residual blocks, light attention",
    build=R2CNet,
    reported={
        2: Reported(0.3987, 272.7942, 35.32, 38.01, 0.8971, 29.73, 9.68),
        3: Reported(0.4073, 129.2038, 32.84, 35.30, 0.8469, 13.79, 15.67),
    },
    recipe=two_stages("psnr"),
)
