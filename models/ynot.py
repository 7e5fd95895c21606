"""YNOT, team YNOT (section 3.24): wavelets for detail, Fourier transforms for the whole frame.

Features from a spectral transform pass four information multi-distillation modules. Their high-frequency Haar bands are
put together again with the low band of the modules' output and added to the fused features.

The report's row prints the parameters and MACs of the network built for x3 at 1280x720; the x2 network of the same
row has 464,764 parameters and costs twice as much. The layers are those of the team's code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.attention import ContrastAttention
from models.blocks.conv import conv3
from models.blocks.fourier import SpectralTransform
from models.blocks.resample import crop, pad_to_multiple
from models.blocks.rlfb import LEAK
from models.blocks.wavelet import InverseSubband, Subband
from models.recipe import two_stages
from models.spec import ModelSpec, PrintedConfiguration, Reported

_CHANNELS = 64
_MODULES = 4
_LL = 0


class MultiDistillation(nn.Module):
    """Four convolutions, each giving up a quarter of the channels to the output: (N, channels, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.sizes = (channels // 4, channels - channels // 4)
        distilled, kept = self.sizes
        self.first = conv3(channels)
        self.second = conv3(kept, channels)
        self.third = conv3(kept, channels)
        self.last = conv3(kept, distilled)
        self.activation = nn.LeakyReLU(LEAK)
        self.fuse = nn.Sequential(ContrastAttention(channels, reduction=16), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Refine x."""
        distilled: list[Tensor] = []
        rest = x
        for conv in (self.first, self.second, self.third):
            part, rest = self.activation(conv(rest)).split(self.sizes, dim=1)
            distilled.append(part)
        distilled.append(self.activation(self.last(rest)))
        return self.fuse(torch.cat(distilled, dim=1)) + x


class YNOT(nn.Module):
    """YNOT; there is no separate training form.

    Shapes: float RGB in [0, 1], (N, 3, H, W) to (N, 3, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = SpectralTransform(3, _CHANNELS)
        self.bands = nn.ModuleList(Subband(_CHANNELS, band) for band in range(4))
        self.distillation = nn.ModuleList(MultiDistillation(_CHANNELS) for _ in range(_MODULES))
        self.inverse = nn.ModuleList(InverseSubband(_CHANNELS, band) for band in range(4))
        self.fuse = nn.Sequential(
            nn.Conv2d(_MODULES * _CHANNELS, _CHANNELS, 1),
            nn.LeakyReLU(LEAK),
            SpectralTransform(_CHANNELS, _CHANNELS),
        )
        self.tail = conv3(_CHANNELS, 3 * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale x."""
        height, width = x.shape[-2:]
        features = y = self.head(pad_to_multiple(x, 2))
        depths: list[Tensor] = []
        for module in self.distillation:
            y = module(y)
            depths.append(y)
        bands = [band(features) for band in self.bands]
        bands[_LL] = self.bands[_LL](y)
        detail = torch.stack([inverse(band) for inverse, band in zip(self.inverse, bands, strict=True)]).sum(0)
        fused = self.fuse(torch.cat(depths, dim=1)) + detail
        return crop(F.pixel_shuffle(self.tail(fused), self.scale), height * self.scale, width * self.scale)


SPEC = ModelSpec(
    name="ynot",
    title="YNOT",
    team="YNOT",
    section="3.24",
    idea="wavelets and Fourier transforms",
    build=YNOT,
    reported={
        2: Reported(
            0.4734,
            422.6991,
            34.03,
            36.99,
            0.8844,
            92.79,
            2.25,
            printed=PrintedConfiguration(lambda: YNOT(3), 1280, 720, "the network built for x3, at 1280x720"),
        )
    },
    recipe=two_stages("l1", "l1"),
)
