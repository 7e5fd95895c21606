"""NJUST-RTSR's network (section 3.7): four re-parameterised residual blocks of sixteen channels.

A head convolution, four blocks of three branches with different receptive fields, a convolution to the output's
channels, a pixel shuffle; no bias anywhere.

Interpretation: the branches are 3x3 + 1x1 + identity (the figure is not in the text), a GELU follows every block (the
printed MACs exclude the ReLU family), and there is no skip beside the blocks' own.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import RepVGGConv, carry_frame
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_CHANNELS = 16
_BLOCKS = 4


class NJUSTRTSR(nn.Module):
    """NJUST-RTSR's network in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = conv3(3, _CHANNELS, bias=False)
        blocks = [RepVGGConv(_CHANNELS, bias=False) for _ in range(_BLOCKS)]
        carry_frame([self.head, *blocks])
        self.body = nn.Sequential(*(layer for block in blocks for layer in (block, nn.GELU())))
        self.tail = conv3(_CHANNELS, 3 * scale**2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        return F.pixel_shuffle(self.tail(self.body(self.head(x))), self.scale)


SPEC = ModelSpec(
    name="njust_rtsr",
    title="NJUST-RTSR",
    team="NJUST-RTSR",
    section="3.7",
    idea="four re-parameterised residual blocks",
    build=NJUSTRTSR,
    reported={
        2: Reported(0.0114, 23.5893, 34.74, 37.64, 0.8901, 5.560, 14.96),
        3: Reported(0.0135, 12.4748, 32.25, 34.90, 0.8384, 2.680, 23.51),
    },
    recipe=two_stages("l1+fft", "l1+fft"),
)
