"""DoYouChargeQQCoin's network (section 3.16): two convolutions, 816 parameters.

A 3x3 convolution to six channels, a ReLU, a 3x3 to the output's channels without bias, a pixel shuffle.

Interpretation: three of the six channels start as the frame's own. The ReLU leaves too little of six random ones: after
3,500 steps from there it was 7.7 dB below bicubic on five validation photographs, from here 0.06 dB above.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import bias_of
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
        nn.init.dirac_(first.weight[:3])
        nn.init.zeros_(bias_of(first)[:3])
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
)
