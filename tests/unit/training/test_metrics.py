"""PSNR, SSIM, and the details that show them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.pictures import detailed
from training.comparison import side_by_side
from training.metrics import psnr, psnr_y, ssim


def test_metrics_know_equal_pictures_and_grow_worse_with_noise() -> None:
    rng = np.random.default_rng(0)
    picture = detailed(0)
    noisy = {sigma: np.clip(picture + rng.normal(0, sigma, picture.shape), 0, 255).astype(np.uint8) for sigma in (2, 8)}
    assert psnr(picture, picture) == psnr_y(picture, picture) == float("inf")
    assert ssim(picture, picture) == pytest.approx(1)
    for metric in (psnr, psnr_y, ssim):
        assert metric(noisy[2], picture) > metric(noisy[8], picture)


def test_luma_weighs_red_and_blue_as_said() -> None:
    grey = np.full((32, 32, 3), 128, np.uint8)
    red = grey.copy()
    red[..., 0] += 10
    luma_difference = 10 * 65.481 / 255
    assert psnr_y(red, grey) == pytest.approx(20 * np.log10(255 / luma_difference), abs=1e-3)
    swapped = 10 * 24.966 / 255
    assert psnr_y(red, grey, organisers=True) == pytest.approx(20 * np.log10(255 / swapped), abs=1e-3)


def test_ssim_is_the_usual_one() -> None:
    """Against the formula of Wang et al. (2004), written out: an 11x11 Gaussian, where it fits into the picture."""
    noisy, picture = detailed(1), detailed(0)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = torch.from_numpy(np.outer(taps, taps) / taps.sum() ** 2)[None, None]

    def smooth(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(x[:, None], window)

    x, y = (torch.from_numpy(each.astype(np.float64)).permute(2, 0, 1) for each in (noisy, picture))
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    scores = (2 * mean_x * mean_y + c1) * (2 * (smooth(x * y) - mean_x * mean_y) + c2)
    scores = scores / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    assert ssim(noisy, picture) == pytest.approx(float(scores.mean()), abs=1e-6)


def test_details_are_shown_where_the_pictures_differ_most() -> None:
    first = np.zeros((60, 100, 3), np.uint8)
    last = first.copy()
    last[30:32, 45:50] = 200
    last[0, 0] = 255
    sheet = np.asarray(side_by_side([{"a": first, "b": last}, {"a": last, "b": first}], 20, 10))
    assert sheet.shape == (2 * (20 + 28), 2 * 40 + 8, 3)
    upper, lower = sheet[28:48], sheet[76:96]
    assert (upper[:, :40] == 0).all()
    assert (upper[:4, 48 + 10 : 48 + 20] == 200).all(), "twice as large, from row 30 and column 40"
    assert np.array_equal(upper[:, :40], lower[:, 48:])
