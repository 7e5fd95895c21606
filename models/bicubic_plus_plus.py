"""Bicubic++, team Aselsan Research (section 3.2): a small network at half resolution, without a single bias.

A strided convolution halves the frame, two more refine it, and one with a pixel shuffle goes straight to the output. In
the report it is trained wider, then pruned channel by channel, then stripped of its biases.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.resample import crop, pad_to_multiple
from models.recipe import two_stages
from models.spec import ModelSpec, Reported

CHANNELS = 32
_LEAK = 0.1


class BicubicPlusPlus(nn.Module):
    """Bicubic++; there is no separate training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).

    Args:
        scale: 2 or 3.
        channels: more than the deployed 32 for the network that is pruned to it (`training.pruning`).
    """

    def __init__(self, scale: int, channels: int = CHANNELS) -> None:
        super().__init__()
        self.scale = scale
        first = nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        last = conv3(channels, bias=False)
        _carry_pixels(first, last)
        self.head = nn.Sequential(first, nn.LeakyReLU(_LEAK))
        self.body = nn.Sequential(conv3(channels, bias=False), nn.LeakyReLU(_LEAK), last, nn.LeakyReLU(_LEAK))
        self.tail = conv3(channels, 3 * (2 * scale) ** 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        features = self.head(pad_to_multiple(x, 2))
        features = self.body(features) + features
        y = F.pixel_shuffle(self.tail(features), 2 * self.scale)
        return crop(y, height * self.scale, width * self.scale)


def _carry_pixels(first: nn.Conv2d, last: nn.Conv2d) -> None:
    """Let a network start with the frame's own pixels in twelve of its channels.

    There is no skip around it: from random features it takes thousands of steps to find the pixels again. They are
    not negative, so the activations let them pass.

    Args:
        first: the strided convolution; it looks at 2x2 pixels of 3 colours.
        last: of the residual body, which adds nothing to those channels at first.
    """
    with torch.no_grad():
        pixels = 0
        for colour in range(3):
            for row in (1, 2):
                for column in (1, 2):
                    first.weight[pixels] = 0
                    first.weight[pixels, colour, row, column] = 1
                    pixels += 1
        last.weight[:pixels] = 0


SPEC = ModelSpec(
    name="bicubic_plus_plus",
    title="Bicubic++",
    team="Aselsan Research",
    section="3.2",
    idea="strided head, pruned, no biases",
    build=BicubicPlusPlus,
    reported={3: Reported(0.0504, 11.6343, 32.06, 34.56, 0.8344, 1.170, 31.26)},
    recipe=two_stages("psnr"),
)
