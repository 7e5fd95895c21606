"""The settings of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """L1 first, then L2 for fine-tuning, each with a cosine decay of the learning rate (section 3.3, scaled down).

    The defaults fit two CPU cores: about 15 steps a second for RUNet x2.
    """

    steps: int = 20_000
    batch_size: int = 16
    hr_patch: int = 192
    """Side of the HR patches in pixels; divisible by 2 * 3 and 3 * 4, what RUNet unshuffles."""
    l2_share: float = 0.1
    """The last part of the steps, trained with L2, in decibels."""
    l1_learning_rate: float = 1.2e-3
    l2_learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    warmup_steps: int = 200
    clip_gradient_norm: float = 0.05
    ema_decay: float = 0.998
    """The exponential moving average of the weights is what is validated and shipped."""
    jpeg_share: float = 0.0
    """Share of the patches whose LR frame passes through JPEG."""
    jpeg_quality: tuple[int, int] = (90, 90)
    mixed_precision: bool = False
    """Run the L1 phase in bfloat16: 1.6 times the steps a second for RUNet x2 on a CPU that has it, none for x3."""
    start_from: str = ""
    """A weights file to start from, and its digest; empty: start from random weights."""
    seed: int = 0

    @property
    def l1_steps(self) -> int:
        """Steps trained with L1, before L2 takes over."""
        return round(self.steps * (1 - self.l2_share))
