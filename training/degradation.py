"""How a low-resolution frame is made from a high-resolution one: the report's degradation.

Pillow's antialiased bicubic and, where asked for, JPEG. The organisers' script saves its LR images as JPEG quality 90,
which the report's text does not mention; the profile `clean` leaves that out.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def degrade(hr: NDArray[np.uint8], scale: int, jpeg_quality: int | None = None) -> NDArray[np.uint8]:
    """The LR frame of an HR one.

    Args:
        hr: RGB, (H, W, 3), with H and W divisible by `scale`.
        scale: 2 or 3.
        jpeg_quality: 1 to 100 to pass the result through JPEG (4:2:0, as Pillow writes it); None to leave it clean.

    Returns:
        RGB, (H / scale, W / scale, 3).

    Raises:
        ValueError: H or W is not divisible by `scale`.
    """
    height, width = hr.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"an HR frame of {width}x{height} cannot be divided by {scale}")
    small = Image.fromarray(hr).resize((width // scale, height // scale), Image.Resampling.BICUBIC)
    if jpeg_quality is not None:
        with io.BytesIO() as file:
            small.save(file, "JPEG", quality=jpeg_quality)
            small = Image.open(file).convert("RGB")
    return np.asarray(small)


def crop_to_multiple(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """`image` (H, W, 3) without the last rows and columns that keep H and W from being multiples of `multiple`."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]
