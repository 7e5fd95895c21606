"""The affine maps between 8-bit Y'CbCr and R'G'B' that an NV12 graph takes with each frame. numpy and nothing else."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Matrix = Literal["bt709", "bt601"]
# From ITU-R BT.709 and BT.601.
_LUMA: dict[Matrix, tuple[float, float]] = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114)}
"""What red and blue weigh in the luma; green has the rest."""


@cache
def colour_maps(matrix: Matrix, full_range: bool) -> NDArray[np.float32]:
    """Both maps of one kind of video, float32 (2, 3, 4), in 8-bit units: white is 255, colourless chroma 128.

    [0] takes (y, u, v, 1) to (r, g, b) and [1] takes (r, g, b, 1) to (y, u, v); each row is one result's weights and
    its constant. Limited range has its luma in 16..235 and its chroma in 16..240, full range both in 0..255.
    """
    red, blue = _LUMA[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    weights = np.stack(
        [luma, (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)), (np.array([1, 0, 0]) - luma) / (2 * (1 - red))]
    )
    offsets = np.array([0.0, 128.0, 128.0])
    if not full_range:
        weights *= np.array([[219], [224], [224]]) / 255
        offsets[0] = 16
    back = np.linalg.inv(weights)
    to_rgb = np.column_stack([back, -back @ offsets])
    to_yuv = np.column_stack([weights, offsets])
    maps = np.stack([to_rgb, to_yuv]).astype(np.float32)
    maps.setflags(write=False)  # everybody is given the same one
    return maps
