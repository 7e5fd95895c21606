"""What the stages of a recipe minimise. All take float RGB in [0, 1], (N, 3, H, W), and give one number."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.recipe import Loss

_CHARBONNIER_EPSILON = 1e-3
_SPECTRUM_WEIGHT = 0.05


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """L1, rounded off near zero."""
    return torch.sqrt((output - target) ** 2 + _CHARBONNIER_EPSILON**2).mean()


def decibels(output: Tensor, target: Tensor) -> Tensor:
    """L2 as it is measured: the mean over the patches of minus their PSNR.

    Plain L2 is ruled by the few patches with the hardest edges and gives up the flat ones: on whole pictures it lost
    0.16 dB of what L1 had reached, the worst one 0.4 dB.
    """
    return 10 * torch.log10(F.mse_loss(output, target, reduction="none").mean((1, 2, 3)) + 1e-7).mean()


def root(output: Tensor, target: Tensor) -> Tensor:
    """The mean over the patches of their root mean squared error, in grey levels.

    Its gradient is as long for a smooth patch as for one with hard edges. That of decibels is a hundred times longer
    for a patch with a hundredth of the error, so that in a batch the smoothest patches decide.
    """
    return 255 * (F.mse_loss(output, target, reduction="none").mean((1, 2, 3)) + 1e-7).sqrt().mean()


def spectrum(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the real and imaginary parts of the two-dimensional spectra."""
    difference = torch.view_as_real(torch.fft.rfft2(output) - torch.fft.rfft2(target))
    return difference.abs().mean()


LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "charbonnier": charbonnier,
    "l2": F.mse_loss,
    "psnr": decibels,
    "rmse": root,
    "l1+fft": lambda output, target: F.l1_loss(output, target) + _SPECTRUM_WEIGHT * spectrum(output, target),
    "l2+fft": lambda output, target: F.mse_loss(output, target) + _SPECTRUM_WEIGHT * spectrum(output, target),
}
