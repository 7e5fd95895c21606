"""Team OV's network (section 3.4): four bias-free convolutions of twelve channels, re-parameterised.

The smallest of the full-resolution networks: three 3x3 convolutions with GELU, one to the output's channels, a pixel
shuffle.

Interpretation:
- The branches of the training form are only in a figure; here they are 3x3 + 1x1 + identity without biases.
- The places of the GELUs are not in the text; here one follows each convolution but the last. There is no skip.
- The text's 16 channels at x3 fit no number of layers; 12 fit both printed numbers.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import RepVGGConv, carry_frame
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

_CHANNELS = 12


class TeamOV(nn.Module):
    """Team OV's network in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        chain = [RepVGGConv(3, _CHANNELS, bias=False), *(RepVGGConv(_CHANNELS, bias=False) for _ in range(2))]
        carry_frame(chain)
        layers = [each for layer in chain for each in (layer, nn.GELU())]
        self.body = nn.Sequential(*layers, RepVGGConv(_CHANNELS, 3 * scale**2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        return F.pixel_shuffle(self.body(x), self.scale)


SPEC = ModelSpec(
    name="team_ov",
    title="Team OV",
    team="Team OV",
    section="3.4",
    idea="four tiny bias-free convolutions",
    build=TeamOV,
    reported={
        2: Reported(0.0042, 8.734, 34.62, 37.45, 0.8899, 2.910, 19.06),
        3: Reported(0.0058, 5.3748, 32.17, 34.72, 0.8376, 1.510, 29.63),
    },
    recipe=two_stages("l1+fft", "l2+fft"),
)
