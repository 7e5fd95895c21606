"""ECBSR with wavelets, team NPU_SuperResolution (section 3.23): a stack of convolutions on Haar bands.

The frame is split into its four Haar bands at half resolution, convolutions with PReLU follow, and a pixel shuffle
brings the result to the output size.

Interpretation: nearly all of it. The report says that the edge branches of ECBSR are replaced by a wavelet transform
whose bands are concatenated, and prints the parameters; where the transform stands, the widths and the depth are chosen
to meet them. The branches of the training form are not described, so there is none. The printed "0.165 (*)" has no
unit that fits anything.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.resample import crop, pad_to_multiple
from models.blocks.wavelet import HaarTransform
from models.spec import ModelSpec, Reported

_CHANNELS = 56
_CONVS = 6


class NPUECBSRWavelet(nn.Module):
    """ECBSR with wavelets.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [HaarTransform(3), conv3(12, _CHANNELS), nn.PReLU(_CHANNELS)]
        for _ in range(_CONVS):
            layers += [conv3(_CHANNELS), nn.PReLU(_CHANNELS)]
        self.body = nn.Sequential(*layers, conv3(_CHANNELS, 3 * (2 * scale) ** 2))

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        y = F.pixel_shuffle(self.body(pad_to_multiple(x, 2)), 2 * self.scale)
        return crop(y, height * self.scale, width * self.scale)


SPEC = ModelSpec(
    name="npu_ecbsr_wavelet",
    title="ECBSR-Wavelet",
    team="NPU_SuperResolution",
    section="3.23",
    idea="convolutions on Haar bands",
    build=NPUECBSRWavelet,
    reported={
        2: Reported(
            0.2001,
            0.165,
            34.49,
            37.42,
            0.8895,
            74.00,
            3.45,
            note='the printed "0.165 (*)" is in no unit that fits the printed parameters, and no layer is described',
        )
    },
)
