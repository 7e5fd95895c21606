"""DoYouChargeQQCoin's network (section 3.16): two convolutions, 816 parameters.

A 3x3 convolution to six channels, a ReLU, a 3x3 to the output's channels without bias, a pixel shuffle.

Interpretation: the six channels start as the frame's own and the same blurred, of which the second convolution can
make most of what bicubic does. docs/decisions.md has what random ones bring.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import bias_of
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_CHANNELS = 6


class QQCoin(nn.Module):
    """DoYouChargeQQCoin's network; there is no separate training form.

    Shapes: float RGB in [0, 255], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        first = conv3(3, _CHANNELS)
        line = torch.tensor([0.25, 0.5, 0.25])
        nn.init.dirac_(first.weight[:3])
        nn.init.zeros_(bias_of(first))
        with torch.no_grad():
            first.weight[3:] = first.weight[:3, :, 1:2, 1:2] * torch.outer(line, line)
        self.body = nn.Sequential(first, nn.ReLU(), conv3(_CHANNELS, 3 * scale**2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        return F.pixel_shuffle(self.body(x), self.scale)


SPEC = ModelSpec(
    name="qqcoin",
    title="DoYouChargeQQCoin",
    team="DoYouChargeQQCoin",
    section="3.16",
    idea="two convolutions, 816 parameters",
    build=QQCoin,
    reported={2: Reported(0.0008, 1.6921, 34.14, 36.97, 0.8855, 2.380, 15.07)},
    input_range=255.0,
    recipe=two_stages("l1", learning_rate=3e-3),
)
