"""Pictures made for tests of training, and settings that suit their size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.settings import Settings

SETTINGS = Settings(
    steps=40,
    batch_size=4,
    hr_patch=48,
    warmup_steps=5,
    clip_gradient_norm=1.0,
    enlarged_share=0.0,
    pixelated_share=0.0,
    soft_share=0.0,
)


def detailed(seed: int, side: int = 240) -> NDArray[np.uint8]:
    """A picture with as much detail as a LR frame can carry, so that there is something to win over bicubic."""
    noise = np.random.default_rng(seed).integers(90, 166, (side // 2, side // 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.LANCZOS))
