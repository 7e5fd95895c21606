"""Bicubic interpolation: the report's reference, and the last rung when there is no time for a network.

As the organisers have it: torch's kernel (a = -0.75) with replicated borders.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.blocks.resample import BicubicUpsample
from models.spec import ModelSpec, Reported


class Bicubic(nn.Module):
    """Bicubic interpolation.

    Shapes: float RGB of any range, (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.upsample = BicubicUpsample(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        return self.upsample(x)


SPEC = ModelSpec(
    name="bicubic",
    title="Bicubic",
    team="reference",
    section="2.2",
    idea="interpolation, nothing learned",
    build=Bicubic,
    reported={
        2: Reported(None, None, 33.92, 36.66, 0.8829, 0.46),
        3: Reported(None, None, 31.30, 33.82, 0.8245, 0.46),
    },
    learned=False,
)
