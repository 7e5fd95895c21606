"""dh_isp's network (section 3.18): four RepBlocks beside a 1x1 convolution of the frame.

The branch of RepBlocks and the 1x1 branch are added and pixel-shuffled; the result weighs itself by its own sigmoid.

Interpretation: the report names the parts, not their widths or order. Sixteen channels come within 2 % of both printed
numbers; the "self-attention" at the end is the parameter-free y * sigmoid(y). The ReLUs are not counted, as the printed
MACs leave no room for them.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.rep import RepVGGConv
from models.spec import ModelSpec, Reported

_CHANNELS = 16
_BLOCKS = 4


class DHISP(nn.Module):
    """dh_isp's network in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = conv3(3, _CHANNELS)
        self.blocks = nn.ModuleList(RepVGGConv(_CHANNELS) for _ in range(_BLOCKS))
        self.tail = conv3(_CHANNELS, 3 * scale**2)
        self.side = nn.Conv2d(3, 3 * scale**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        features = self.head(x)
        for block in self.blocks:
            features = F.relu(block(features))
        y = F.pixel_shuffle(self.tail(features) + self.side(x), self.scale)
        return F.silu(y)


SPEC = ModelSpec(
    name="dh_isp",
    title="dh_isp",
    team="dh_isp",
    section="3.18",
    idea="RepBlocks beside a 1x1 branch",
    build=DHISP,
    reported={
        2: Reported(
            0.0113, 23.4234, 33.99, 36.89, 0.8809, 7.600, 7.63, note="the widths of its layers are not in the report"
        )
    },
)
