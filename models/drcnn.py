"""DRCNN, team diSRupt (section 3.21): a plain stack that learns the residual over nearest-neighbour upsampling.

The frame is enlarged by repeating pixels and brought back by space-to-depth, so a convolution stack at low resolution
sees, and in the end is added to, one channel per output pixel.

Interpretation: the stack's width and depth are not in the report; seven convolutions of 28 channels meet the x2 row
within 1 % and miss the x3 row by 4 %. The row counts two operations per multiply-accumulate (TensorFlow's way), so half
of the printed figure stands here; activations are not counted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.resample import repeat_pixels
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_CHANNELS = 28
_CONVS = 7


class DRCNN(nn.Module):
    """DRCNN; there is no separate training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        pixels = 3 * scale**2
        self.scale = scale
        self.body = nn.ModuleList(conv3(pixels if i == 0 else _CHANNELS, _CHANNELS) for i in range(_CONVS))
        self.tail = conv3(_CHANNELS + pixels, pixels)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        nearest = repeat_pixels(x, self.scale)
        features = nearest
        for conv in self.body:
            features = F.relu(conv(features))
        return F.pixel_shuffle(self.tail(torch.cat([features, nearest], dim=1)) + nearest, self.scale)


_NOTE = "the network's width and depth are not in the report"

SPEC = ModelSpec(
    name="drcnn",
    title="DRCNN",
    team="diSRupt",
    section="3.21",
    idea="residual over nearest-neighbour",
    build=DRCNN,
    reported={
        2: Reported(0.0500, 103.5, 34.07, 36.86, 0.8830, 16.00, 5.54, note=_NOTE),
        3: Reported(
            0.0649, 60.0, 31.64, 34.25, 0.8292, 16.00, 6.34, note=f"{_NOTE}, and the x2 row's stack does not fit x3"
        ),
    },
    recipe=two_stages("l2"),
)
