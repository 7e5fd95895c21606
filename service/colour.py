"""How YUV numbers become RGB ones and back: what an NV12 network is told of a frame's colours."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from upscale_client.v1 import upscale_pb2 as pb

# The weights of red and blue in luma, from ITU-R BT.709 and BT.601.
_LUMA = {pb.COLOUR_MATRIX_BT709: (0.2126, 0.0722), pb.COLOUR_MATRIX_BT601: (0.299, 0.114)}
_LIMITED = (16.0, 219.0, 224.0)  # where Y begins; how far Y, and U and V, reach
_FULL = (0.0, 255.0, 255.0)


@cache
def colour_maps(matrix: pb.ColourMatrix, full_range: bool) -> NDArray[np.float32]:
    """The affine maps (y, u, v, 1) to (r, g, b) and (r, g, b, 1) to (y, u, v), in grey levels: float32 (2, 3, 4)."""
    red, blue = _LUMA[matrix]
    black, luma, chroma = _FULL if full_range else _LIMITED
    weights = np.array([red, 1 - red - blue, blue])
    to_yuv = np.stack(
        [
            weights * luma / 255,
            (np.array([0, 0, 1]) - weights) / (2 * (1 - blue)) * chroma / 255,
            (np.array([1, 0, 0]) - weights) / (2 * (1 - red)) * chroma / 255,
        ]
    )
    offset = np.array([black, 128.0, 128.0])
    to_rgb = np.linalg.inv(to_yuv)
    maps = np.stack([np.c_[to_rgb, -to_rgb @ offset], np.c_[to_yuv, offset]])
    return maps.astype(np.float32)
