"""Fixed resampling: no parameters, nothing to train."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class BicubicUpsample(nn.Module):
    """Bicubic interpolation as the report's organisers use it: torch's, a = -0.75, borders replicated.

    Shapes: (N, C, H, W) to (N, C, scale*H, scale*W).
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x."""
        return F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)


class PolyphaseUpsample(nn.Module):
    """`BicubicUpsample` as one depthwise 5x5 convolution and a pixel shuffle, which most engines run faster.

    Each of the scale*scale output phases is a fixed 4x4 kernel somewhere inside the 5x5 window around its input pixel.
    """

    kernel: Tensor

    def __init__(self, scale: int, channels: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.channels = channels
        # The kernel is what bicubic interpolation answers to an impulse in each of the window's 25 places.
        impulses = torch.zeros(25, 1, 11, 11, dtype=torch.float64)
        for place in range(25):
            impulses[place, 0, 3 + place // 5, 3 + place % 5] = 1
        centre = slice(5 * scale, 6 * scale)
        answers = BicubicUpsample(scale)(impulses)[:, 0, centre, centre]
        kernel = answers.flatten(1).T.reshape(scale**2, 1, 5, 5).repeat(channels, 1, 1, 1)
        self.register_buffer("kernel", kernel.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x."""
        phases = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), self.kernel, groups=self.channels)
        return F.pixel_shuffle(phases, self.scale)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """X (N, C, H, W) with rows and columns replicated at the bottom and the right until `multiple` divides H and W."""
    height, width = x.shape[-2:]
    # Unconditional, so that an exported graph works for every size.
    return F.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def crop(y: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of y (N, C, H, W): what `pad_to_multiple` has added is cut off again."""
    return y[..., :height, :width]


def repeat_pixels(x: Tensor, scale: int) -> Tensor:
    """Every channel scale * scale times, (N, C, H, W) to (N, C * scale * scale, H, W).

    A pixel shuffle of it is nearest-neighbour upsampling.
    """
    return x.repeat_interleave(scale**2, dim=1)
