"""How near a picture is to the true one, by the report's protocol (section 2.1): 8-bit pictures, no border left out."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

_BT601 = np.array([65.481, 128.553, 24.966]) / 255
"""Limited-range luma of R, G and B; the constant 16 cancels in a difference."""
_RADIUS = 5  # of SSIM's window
_SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_BLOCK = 64


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """PSNR over RGB in dB, peak 255; infinite for equal pictures."""
    difference = np.subtract(image, reference, dtype=np.int16)
    error = int(np.square(difference, dtype=np.int32).sum(dtype=np.int64))
    return 10 * float(np.log10(255**2 * difference.size / error)) if error else float("inf")


def psnr_y(image: NDArray[np.uint8], reference: NDArray[np.uint8], *, organisers: bool = False) -> float:
    """PSNR of the BT.601 luma in dB, peak 255, the luma not rounded; infinite for equal luma.

    With `organisers`, red and blue change places, as in the script behind the report's numbers.
    """
    weights = _BT601[::-1] if organisers else _BT601
    difference = (image.astype(np.float32) - reference) @ weights.astype(np.float32)
    error = float(np.square(difference, dtype=np.float64).mean())
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """SSIM over RGB: an 11x11 Gaussian of sigma 1.5 where it fits into the picture, each channel, then the mean."""
    return sum(_ssim(image[..., channel], reference[..., channel]) for channel in range(3)) / 3


def _ssim(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    x, y = (plane.astype(np.float32) - 128 for plane in (image, reference))  # small numbers: their squares are exact
    mean_x, mean_y = _smooth(x), _smooth(y)
    variances = _smooth(x * x + y * y) - mean_x**2 - mean_y**2  # both, of which only the sum is needed
    covariance = _smooth(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 128, mean_y + 128
    score = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    score /= (mean_x**2 + mean_y**2 + _C1) * (variances + _C2)
    return float(score.mean(dtype=np.float64))


def _smooth(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Gaussian's mean at every place where it fits; as products of matrices, a third of a convolution's time."""
    band = _band()
    for _ in range(2):  # along the rows, then along the columns
        length = len(plane) - 2 * _RADIUS
        blocks = [(top, min(_BLOCK, length - top)) for top in range(0, length, _BLOCK)]
        plane = np.concatenate(
            [band[:rows, : rows + 2 * _RADIUS] @ plane[top : top + rows + 2 * _RADIUS] for top, rows in blocks]
        ).T
    return plane


@cache
def _band() -> NDArray[np.float32]:
    """The Gaussian on the diagonals: (block, block + 2 radius)."""
    taps = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    band = np.zeros((_BLOCK, _BLOCK + 2 * _RADIUS), np.float32)
    for row in range(_BLOCK):
        band[row, row : row + len(taps)] = taps / taps.sum()
    return band
