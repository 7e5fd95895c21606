"""LFDN, team NTU_BL6F (section 3.20): RLFN with fewer channels.

Six residual local feature blocks of 32 channels with spatial attention, a fusion convolution, a long skip. The team
starts from a wider RLFN's weights and keeps a power of two of the channels.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rlfb import ResidualLocalFeatureBlock
from models.spec import ModelSpec, Reported

_CHANNELS = 32
_BLOCKS = 6


class LFDN(nn.Module):
    """LFDN; there is no separate training form.

    Shapes: float RGB in [0, 255], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = conv3(3, _CHANNELS)
        blocks = (ResidualLocalFeatureBlock(_CHANNELS, conv3, attention=16) for _ in range(_BLOCKS))
        self.body = nn.Sequential(*blocks, conv3(_CHANNELS))
        self.tail = conv3(_CHANNELS, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        return F.pixel_shuffle(self.tail(self.body(features) + features), self.scale)


SPEC = ModelSpec(
    name="lfdn",
    title="LFDN",
    team="NTU_BL6F",
    section="3.20",
    idea="RLFN with 32 channels",
    build=LFDN,
    reported={2: Reported(0.2223, 409.8416, 35.26, 38.04, 0.8977, 69.37, 6.07)},
    input_range=255.0,
)
