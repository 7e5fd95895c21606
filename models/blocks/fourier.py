"""Fast Fourier convolution: a 1x1 convolution in the frequency domain sees the whole frame (FFC, Chi et al., 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FourierUnit(nn.Module):
    """Transform, mix the channels of every frequency by a 1x1 convolution, transform back.

    Shapes: (N, channels, H, W) to the same, in float32 inside: FFT in half precision exists for few sizes only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(2 * channels, 2 * channels, 1, bias=False), nn.BatchNorm2d(2 * channels), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix x in the frequency domain."""
        wide = x if x.dtype == torch.float64 else x.float()
        spectrum = torch.fft.rfft2(wide, norm="ortho")
        # Real and imaginary parts take turns: channel 2 * c and 2 * c + 1.
        parts = torch.stack([spectrum.real, spectrum.imag], dim=2).flatten(1, 2).to(x.dtype)
        real, imaginary = self.mix(parts).to(wide.dtype).unflatten(1, (-1, 2)).unbind(2)
        return torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho").to(x.dtype)


class SpectralTransform(nn.Module):
    """A residual of a Fourier unit over the frame and of one over its quadrants.

    The quadrants' unit takes the first quarter of the channels, the four quadrants stacked as channels, and its answer
    is repeated over the frame. Shapes: (N, in_channels, H, W) to (N, out_channels, H, W), H and W even.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        width = out_channels // 2
        self.enter = nn.Sequential(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.whole = FourierUnit(width)
        self.quadrants = FourierUnit(width)
        self.leave = nn.Conv2d(width, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform x."""
        v = self.enter(x)
        half_height, half_width = v.shape[-2] // 2, v.shape[-1] // 2
        quarter = v[:, : v.shape[1] // 4]
        rows = torch.cat([quarter[..., :half_height, :], quarter[..., half_height:, :]], dim=1)
        stacked = torch.cat([rows[..., :half_width], rows[..., half_width:]], dim=1)
        repeated = self.quadrants(stacked).repeat(1, 1, 2, 2)
        return self.leave(v + self.whole(v) + repeated)
