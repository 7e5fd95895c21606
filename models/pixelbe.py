"""PixelBE's network (section 3.14): first undo the JPEG, then upscale.

A strided convolution and two edge-oriented convolutions make a cleaned frame of the input's size, which the team
supervises against the uncompressed one; two more of them and a pixel shuffle upscale it.

Interpretation: the report gives no widths. 24 and 36 channels come within 2 % of both printed numbers; no natural
choice meets them exactly.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import EdgeConv
from models.blocks.resample import crop
from models.spec import ModelSpec, Reported

_CLEAN_CHANNELS, _SCALE_CHANNELS = 24, 36


class PixelBE(nn.Module):
    """PixelBE's network in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.restore = nn.Sequential(
            nn.Conv2d(3, _CLEAN_CHANNELS, 3, stride=2, padding=1),
            EdgeConv(_CLEAN_CHANNELS),
            nn.PReLU(_CLEAN_CHANNELS),
            EdgeConv(_CLEAN_CHANNELS, 12),
        )
        self.upscale = nn.Sequential(
            EdgeConv(3, _SCALE_CHANNELS), nn.PReLU(_SCALE_CHANNELS), EdgeConv(_SCALE_CHANNELS, 3 * scale**2)
        )

    def restored(self, x: Tensor) -> Tensor:
        """The frame x without its compression artefacts, in its own size."""
        return crop(F.pixel_shuffle(self.restore(x), 2), x.shape[-2], x.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        return F.pixel_shuffle(self.upscale(self.restored(x)), self.scale)


SPEC = ModelSpec(
    name="pixelbe",
    title="PixelBE",
    team="PixelBE",
    section="3.14",
    idea="restores the compressed frame, then upscales",
    build=PixelBE,
    reported={
        2: Reported(
            0.0137, 14.7226, 34.70, 37.52, 0.8908, 6.840, 13.12, note="the widths of its layers are not in the report"
        )
    },
)
