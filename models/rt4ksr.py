"""RT4KSR, the report's baseline (section 2.2): plain blocks beside a branch for high frequencies.

The frame and what a Gaussian blur takes from it are pixel-unshuffled by 2 and pass the same head. Four normalised,
re-parameterised blocks refine the frame's features; the high-frequency features are refined once and added.

Interpretation: in the released default the high-frequency branch is computed and not used. Here it is used, by the
published formula for that case, with the trainable weight of the deep features starting at 1; parameters and MACs are
the same. The printed MACs stand for an input of 14,745,600 pixels (3840x3840), seven and sixteen times the protocol's.

Interpretation: the features start with the frame's own pixels (`_carry_pixels`). Normalisation and GELU take away most
of the frame from random ones: after 1,068 steps from there, x2 was 4.9 dB below bicubic on five validation photographs,
from here 0.2 dB.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.conv import conv3
from models.blocks.norm import ChannelNorm
from models.blocks.rep import ExpandSqueezeConv, bias_of
from models.blocks.resample import crop, pad_to_multiple
from models.spec import ModelSpec, PrintedConfiguration, Reported

_CHANNELS = 24
_BLOCKS = 4
_CONSTANT = 32.0


class GaussianBlur(nn.Module):
    """A 5x5 Gaussian of sigma 1 with mirrored borders: (N, 3, H, W) to the same; H and W of 3 pixels or more."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2)
        line = line / line.sum()
        self.register_buffer("kernel", torch.outer(line, line).repeat(3, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Blur x."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.kernel, groups=3)


def _block() -> nn.Sequential:
    return nn.Sequential(ChannelNorm(_CHANNELS), ExpandSqueezeConv(_CHANNELS), nn.GELU())


class RT4KSR(nn.Module):
    """RT4KSR in its training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.blur = GaussianBlur()
        self.head = conv3(12, _CHANNELS)
        self.detail = nn.Sequential(ExpandSqueezeConv(_CHANNELS), nn.GELU())
        self.deep = nn.Sequential(*(_block() for _ in range(_BLOCKS)))
        self.gamma = nn.Parameter(torch.ones(1))
        self.tail = nn.Sequential(
            ChannelNorm(_CHANNELS), ExpandSqueezeConv(_CHANNELS), conv3(_CHANNELS, 3 * (2 * scale) ** 2)
        )
        self._carry_pixels()

    @torch.no_grad()
    def _carry_pixels(self) -> None:
        """Start with twelve channels that carry the unshuffled frame through norms and GELUs, nearly unchanged.

        A thirteenth holds minus their sum, so that a norm's mean is constant; a fourteenth one large constant, so that
        its variance nearly is. Offsets keep them where GELU is nearly linear; ten channels stay random.
        """
        offset = torch.tensor([1.0] * 12 + [13.0, _CONSTANT])
        carried = len(offset)
        self.head.weight[:carried] = 0.0
        self.head.weight[:12, :, 1, 1] = torch.eye(12)
        self.head.weight[12, :, 1, 1] = -1.0
        bias_of(self.head)[:carried] = offset
        at_half = offset + torch.tensor([0.5] * 12 + [-6.0, 0.0])
        mean = offset.sum() / _CHANNELS
        spread = (at_half.square().sum() / _CHANNELS - mean**2).sqrt()
        for norm in self.modules():
            if isinstance(norm, ChannelNorm):
                norm.gain[:carried] = spread
                norm.shift[:carried, 0, 0] = mean - offset
        for conv in self.modules():
            if isinstance(conv, ExpandSqueezeConv):
                conv.squeeze.weight[:carried] = 0.0
                bias_of(conv.squeeze)[:carried] = offset

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        frame = pad_to_multiple(x, 2)
        detail = self.detail(self.head(F.pixel_unshuffle(frame - self.blur(frame), 2)))
        deep = self.deep(self.head(F.pixel_unshuffle(frame, 2)))
        y = F.pixel_shuffle(self.tail(self.gamma * deep + detail), 2 * self.scale)
        return crop(y, height * self.scale, width * self.scale)


def _printed(scale: int) -> PrintedConfiguration:
    return PrintedConfiguration(lambda: RT4KSR(scale), 3840, 3840, "an input of 14,745,600 pixels")


SPEC = ModelSpec(
    name="rt4ksr",
    title="RT4KSR",
    team="baseline",
    section="2.2",
    idea="plain blocks beside a high-frequency branch",
    build=RT4KSR,
    reported={
        2: Reported(0.0445, 171.99, 34.22, 37.01, 0.8854, 7.090, 9.27, printed=_printed(2)),
        3: Reported(0.0575, 219.77, 31.74, 34.37, 0.8299, 3.740, 14.01, printed=_printed(3)),
    },
)
