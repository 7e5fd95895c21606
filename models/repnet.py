"""Repnet, team RTVSR (section 3.5): a few convolutions at half resolution over a bilinear skip.

The frame is pixel-unshuffled by 2, three (x2) or four (x3) convolutions with leaky ReLU make the residual, and a pixel
shuffle brings it to the output size. In training each convolution is 3x3, batch normalisation, 1x1.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import ConvBNConv
from models.blocks.resample import crop, pad_to_multiple
from models.spec import ModelSpec, Reported

_CHANNELS = 32
_LEAK = 0.1
_BODY_CONVS = {2: 1, 3: 2}


class Repnet(nn.Module):
    """Repnet in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [ConvBNConv(12, _CHANNELS), nn.LeakyReLU(_LEAK)]
        for _ in range(_BODY_CONVS[scale]):
            layers += [ConvBNConv(_CHANNELS, _CHANNELS), nn.LeakyReLU(_LEAK)]
        self.body = nn.Sequential(*layers, ConvBNConv(_CHANNELS, 3 * (2 * scale) ** 2))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2] * self.scale, x.shape[-1] * self.scale
        cells = F.pixel_unshuffle(pad_to_multiple(x, 2), 2)
        residual = crop(F.pixel_shuffle(self.body(cells), 2 * self.scale), height, width)
        return residual + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


SPEC = ModelSpec(
    name="repnet",
    title="Repnet",
    team="RTVSR",
    section="3.5",
    idea="half resolution over a bilinear skip",
    build=Repnet,
    reported={
        2: Reported(0.0266, 13.7687, 34.71, 37.50, 0.8910, 2.240, 23.13),
        3: Reported(0.0532, 12.2315, 32.22, 34.77, 0.8372, 1.960, 26.89),
    },
)
