"""What only RUNet has: its skip."""

from __future__ import annotations

import pytest
import torch

from models.blocks.resample import BicubicUpsample
from models.registry import get


@pytest.mark.parametrize("scale", [2, 3])
def test_an_untrained_network_is_bicubic(scale: int) -> None:
    frames = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(get("runet").build(scale)(frames), BicubicUpsample(scale)(frames))
