"""Pictures on disk: found below a folder, opened as RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LONGEST_SIDE = 3840  # larger photographs are reduced to 4K, which also removes their JPEG noise
_HALF_CHROMA = (1, 2)  # what Pillow calls 4:2:2 and 4:2:0


def list_images(folder: Path) -> list[Path]:
    """The pictures below `folder`, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def open_rgb(path: Path) -> NDArray[np.uint8]:
    """The picture at `path` as RGB (H, W, 3), reduced to 4K if it is larger; transparency is laid over white."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA") if "A" in opened.getbands() or "transparency" in opened.info else opened
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    shrink = _LONGEST_SIDE / max(image.size)
    if shrink < 1:
        image = image.resize((round(image.width * shrink), round(image.height * shrink)), Image.Resampling.LANCZOS)
    return np.asarray(image)


def open_true_rgb(path: Path) -> NDArray[np.uint8]:
    """As `open_rgb`, but a JPEG whose chroma is stored at half the size is reduced to that size.

    At full size it would teach that colours have no detail. A frame of 4:2:0 loses 1 to 2 dB of its PSNR over RGB by
    its colours alone, and a network can win that back only if its training pictures have them.
    """
    with Image.open(path) as image:
        subsampled = isinstance(image, JpegImageFile) and get_sampling(image) in _HALF_CHROMA
    picture = open_rgb(path)
    if not subsampled:
        return picture
    half = (picture.shape[1] // 2, picture.shape[0] // 2)
    return np.asarray(Image.fromarray(picture).resize(half, Image.Resampling.LANCZOS))
