"""The colour maps by the standards' own numbers; tests/unit/export/test_colour.py holds what graphs make of them."""

from __future__ import annotations

import numpy as np
import pytest

from upscale_client.colour import Matrix, colour_maps


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
@pytest.mark.parametrize("full", [False, True])
def test_the_maps_are_what_the_standards_say(matrix: Matrix, full: bool) -> None:
    to_rgb, to_yuv = colour_maps(matrix, full).astype(np.float64)
    black, white, most = (0, 255, 255.5) if full else (16, 235, 240)
    for rgb, expected in (([0, 0, 0], [black, 128, 128]), ([255, 255, 255], [white, 128, 128])):
        assert np.allclose(to_yuv @ [*rgb, 1], expected, atol=0.01)
        assert np.allclose(to_rgb @ [*expected, 1], rgb, atol=0.01)
    # The purest blue has the most U, the purest red the most V.
    assert np.isclose((to_yuv @ [0, 0, 255, 1])[1], most, atol=0.01)
    assert np.isclose((to_yuv @ [255, 0, 0, 1])[2], most, atol=0.01)
    green = {"bt709": 0.7152, "bt601": 0.587}[matrix]
    assert np.isclose((to_yuv @ [0, 255, 0, 1])[0], black + (white - black) * green, atol=0.01)
