"""The degradation that LR frames are made by."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.pictures import detailed
from training.degradation import TRAINING, Degradation, crop_to_multiple, degrade
from training.metrics import psnr


def test_degradation_is_pillows_bicubic() -> None:
    hr = detailed(0)
    expected = Image.fromarray(hr).resize((80, 80), Image.Resampling.BICUBIC)
    assert np.array_equal(degrade(hr, 3), np.asarray(expected))


def test_jpeg_changes_the_frame_but_not_by_much() -> None:
    hr = detailed(0)
    clean, compressed = degrade(hr, 2), degrade(hr, 2, jpeg_quality=90)
    assert 20 < psnr(compressed, clean) < 60


def test_full_chroma_keeps_colours_better() -> None:
    hr = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    clean = degrade(hr, 2)
    assert psnr(degrade(hr, 2, 90, "4:4:4"), clean) > psnr(degrade(hr, 2, 90, "4:2:0"), clean) + 1


def test_a_degradation_is_drawn_from_its_ranges() -> None:
    hr = detailed(0)
    assert np.array_equal(TRAINING["clean"].apply(hr, 2, np.random.default_rng(0)), degrade(hr, 2))
    always = Degradation(jpeg_share=1, jpeg_quality=(70, 71), full_chroma_share=1)
    possible = [degrade(hr, 2, quality, "4:4:4") for quality in (70, 71)]
    drawn = [always.apply(hr, 2, np.random.default_rng(seed)) for seed in range(12)]
    met = {next(i for i, frame in enumerate(possible) if np.array_equal(frame, each)) for each in drawn}
    assert met == {0, 1}


def test_a_frame_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="100x101 cannot be divided by 2"):
        degrade(np.zeros((101, 100, 3), np.uint8), 2)
    assert crop_to_multiple(np.zeros((101, 100, 3), np.uint8), 3).shape == (99, 99, 3)
