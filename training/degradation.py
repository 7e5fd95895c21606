"""How a low-resolution frame is made from a high-resolution one: the report's degradation.

Pillow's antialiased bicubic and, where asked for, JPEG. The organisers' script saves its LR images as JPEG quality 90,
which the report's text does not mention; the profile `clean` leaves that out.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.weights import Profile

Subsampling = Literal["4:2:0", "4:4:4"]
"""Of the chroma in a JPEG: half the size each way, or all of it."""

PROTOCOL_JPEG: Mapping[Profile, int | None] = MappingProxyType({"clean": None, "compressed": 90})
"""The JPEG quality of the LR frames that a profile is measured on."""


@dataclass(frozen=True)
class Degradation:
    """What random LR frames of a training run go through."""

    jpeg_share: float = 0.0
    """Of the frames that pass through JPEG."""
    jpeg_quality: tuple[int, int] = (90, 90)
    """The least and the greatest, both possible."""
    full_chroma_share: float = 0.0
    """Of the JPEGs that are 4:4:4; the others are 4:2:0."""

    def apply(self, hr: NDArray[np.uint8], scale: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The LR frame of an HR one, as `degrade`."""
        quality = None
        if rng.random() < self.jpeg_share:
            quality = int(rng.integers(self.jpeg_quality[0], self.jpeg_quality[1] + 1))
        return degrade(hr, scale, quality, "4:4:4" if rng.random() < self.full_chroma_share else "4:2:0")


TRAINING: Mapping[Profile, Degradation] = MappingProxyType(
    {"clean": Degradation(), "compressed": Degradation(0.97, (86, 94), 0.1)}
)
"""What the frames of a profile go through in training: around the protocol's quality, so that others are met too."""


def degrade(
    hr: NDArray[np.uint8], scale: int, jpeg_quality: int | None = None, subsampling: Subsampling = "4:2:0"
) -> NDArray[np.uint8]:
    """The LR frame of an HR one.

    Args:
        hr: RGB, (H, W, 3), with H and W divisible by `scale`.
        scale: 2 or 3.
        jpeg_quality: 1 to 100 to pass the result through JPEG, as Pillow writes it; None to leave it clean.
        subsampling: of that JPEG.

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
            small.save(file, "JPEG", quality=jpeg_quality, subsampling=subsampling)
            small = Image.open(file).convert("RGB")
    return np.asarray(small)


def crop_to_multiple(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """`image` (H, W, 3) without the last rows and columns that keep H and W from being multiples of `multiple`."""
    height, width = image.shape[:2]
    return image[: height - height % multiple, : width - width % multiple]
