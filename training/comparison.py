"""The same detail of several pictures, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_ENLARGED = 2
_GAP = 8
_TITLE = 28  # the height of a name above its detail


def side_by_side(rows: Sequence[Mapping[str, NDArray[np.uint8]]], width: int, height: int) -> Image.Image:
    """A sheet of details, each enlarged to twice its size, with its name.

    Args:
        rows: named pictures, RGB (H, W, 3), those of a row of one size and as many in each. A row shows them at the
            place, on a grid of details, where the first differs most from the last.
        width: of a detail, in pixels.
        height: of a detail, in pixels.
    """
    across, down = _ENLARGED * width, _ENLARGED * height
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (across + _GAP) - _GAP, len(rows) * (down + _TITLE)), "white")
    for number, row in enumerate(rows):
        pictures = list(row.values())
        top, left = _furthest(pictures[0], pictures[-1], width, height)
        for place, (name, picture) in enumerate(row.items()):
            x, y = place * (across + _GAP), number * (down + _TITLE)
            detail = Image.fromarray(picture[top : top + height, left : left + width])
            sheet.paste(detail.resize((across, down), Image.Resampling.NEAREST), (x, y + _TITLE))
            ImageDraw.Draw(sheet).text((x + 6, y + 8), name, fill="black", font_size=16)
    return sheet


def _furthest(first: NDArray[np.uint8], last: NDArray[np.uint8], width: int, height: int) -> tuple[int, int]:
    """The top and left of the detail in which two pictures differ most."""
    error = np.abs(np.subtract(first, last, dtype=np.int16)).sum(2, dtype=np.int64)
    rows, columns = error.shape[0] // height, error.shape[1] // width
    blocks = error[: rows * height, : columns * width].reshape(rows, height, columns, width).sum((1, 3))
    row, column = np.unravel_index(int(blocks.argmax()), blocks.shape)
    return int(row) * height, int(column) * width
