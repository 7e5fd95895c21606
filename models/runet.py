"""RUNet, team ALONG (section 3.3): work at a ninth or a sixteenth of the resolution, with re-parameterised blocks.

The frame is pixel-unshuffled by 3 (x2) or 4 (x3), passes a head convolution, a body of RepBlocks and a tail
convolution, and is pixel-shuffled to the output size. GELU for x2, SiLU for x3.

Interpretation:
- The report's parameters and MACs fit only a 1x1 tail at x3, and a final shuffle of unshuffle * scale (6 and 12).
- "a skip connection" is not placed by the text. Here it is the bicubically enlarged frame added to the output: it costs
  no parameters and no counted MACs, and the network, whose tail starts at zero, is bicubic at first and learns the
  residual; docs/decisions.md says why.
- The RepBlock is RepVGG's (3x3 + 1x1 + identity) without batch normalisation.
- Colours reach from 0 to 4, not to 1: GELU and SiLU are all but straight for the small differences that detail is made
  of, and how small they are is a matter of scale. docs/decisions.md has what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.rep import RepVGGConv
from models.blocks.resample import BicubicUpsample, pad_to_multiple
from models.spec import ModelSpec, Reported


@dataclass(frozen=True)
class _Config:
    unshuffle: int
    channels: int
    blocks: int
    activation: type[nn.Module]
    tail_kernel: int


_CONFIGS = {
    2: _Config(unshuffle=3, channels=32, blocks=3, activation=nn.GELU, tail_kernel=3),
    3: _Config(unshuffle=4, channels=64, blocks=5, activation=nn.SiLU, tail_kernel=1),
}


class RUNet(nn.Module):
    """RUNet in its training form.

    Shapes: float RGB in [0, 4], (N, 3, H, W) to (N, 3, scale*H, scale*W); any H and W (replicated up to a multiple of
    the unshuffle factor, then cropped).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        config = _CONFIGS[scale]
        self.scale = scale
        self.unshuffle = config.unshuffle
        channels, kernel = config.channels, config.tail_kernel
        self.head = nn.Sequential(nn.Conv2d(3 * config.unshuffle**2, channels, 3, padding=1), config.activation())
        self.body = nn.Sequential(
            *(layer for _ in range(config.blocks) for layer in (RepVGGConv(channels), config.activation()))
        )
        self.tail = nn.Conv2d(channels, 3 * (config.unshuffle * scale) ** 2, kernel, padding=kernel // 2)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)
        self.skip = BicubicUpsample(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        cells = F.pixel_unshuffle(pad_to_multiple(x, self.unshuffle), self.unshuffle)
        residual = F.pixel_shuffle(self.tail(self.body(self.head(cells))), self.unshuffle * self.scale)
        return residual[..., : height * self.scale, : width * self.scale] + self.skip(x)


SPEC = ModelSpec(
    name="runet",
    title="RUNet",
    team="ALONG",
    section="3.3",
    idea="a ninth or a sixteenth of the resolution",
    build=RUNet,
    input_range=4.0,
    reported={
        2: Reported(0.0668, 15.3281, 34.63, 37.38, 0.8906, 1.910, 23.81),
        3: Reported(0.2404, 13.8019, 32.18, 34.66, 0.8367, 1.660, 28.57),
    },
)
