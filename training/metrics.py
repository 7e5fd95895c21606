"""How near a picture is to the true one, by the report's protocol (section 2.1): 8-bit pictures, no border left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

_BT601 = np.array([65.481, 128.553, 24.966]) / 255
"""Limited-range luma of R, G and B; the constant 16 cancels in a difference."""


def psnr(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """PSNR over RGB in dB, peak 255; infinite for equal pictures."""
    if np.array_equal(image, reference):
        return float("inf")
    # Whole numbers: exact, and a twentieth of the time that floats of a 4K picture take.
    difference = np.subtract(image, reference, dtype=np.int16)
    error = float(np.square(difference, dtype=np.int32).mean(dtype=np.float64))
    return 10 * float(np.log10(255**2 / error))


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
    value: Any = structural_similarity(
        reference.astype(np.float32),
        image.astype(np.float32),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255.0,
        channel_axis=2,
    )
    return float(value)
