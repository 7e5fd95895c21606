"""OELSR, team AGSR (section 3.15): four convolutions and one activation.

A head, two re-parameterised convolutions around a single PReLU, a convolution to the output's channels, a pixel
shuffle.

Interpretation: the PReLU stands between the two middle convolutions, and a residual goes around them, as in ELSR.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import ExpandSqueezeConv
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_CHANNELS = 16


class OELSR(nn.Module):
    """OELSR in its training form.

    Shapes: float RGB in [0, 255], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = conv3(3, _CHANNELS)
        self.body = nn.Sequential(ExpandSqueezeConv(_CHANNELS), nn.PReLU(_CHANNELS), ExpandSqueezeConv(_CHANNELS))
        self.tail = conv3(_CHANNELS, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(features) + features), self.scale)


SPEC = ModelSpec(
    name="oelsr",
    title="OELSR",
    team="AGSR",
    section="3.15",
    idea="four convolutions, one activation",
    build=OELSR,
    reported={2: Reported(0.0068, 14.0673, 34.31, 37.00, 0.8888, 4.220, 12.77)},
    input_range=255.0,
    recipe=two_stages("charbonnier"),
)
