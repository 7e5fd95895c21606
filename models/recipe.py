"""How a method is trained, as data: what `training` scales to a budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Loss = Literal["l1", "charbonnier", "l2", "psnr", "rmse", "l1+fft", "l2+fft"]
"""What a stage minimises.

`charbonnier` is L1 rounded off near zero. `psnr` is L2 in decibels, `rmse` the root of L2, both per patch. `+fft` adds
the L1 distance of the spectra, times 0.05 (ShuffleMixer, Sun et al., 2022).
"""


@dataclass(frozen=True)
class Stage:
    """A part of a training run."""

    loss: Loss
    share: float
    """Of the run's steps, 0 to 1."""
    learning_rate: float
    """At the stage's beginning; it falls by a cosine to that of the next stage, after the last one to zero."""


@dataclass(frozen=True)
class Recipe:
    """The stages of a run; their shares add up to 1.

    The losses are each team's own, except that fine-tuning by L2 is done in decibels, and the rates and shares are
    those that suit a short run; docs/decisions.md has the measurements.
    """

    stages: tuple[Stage, ...] = (Stage("l1", 0.9, 1.2e-3), Stage("psnr", 0.1, 1e-4))

    def with_loss(self, loss: Loss) -> Recipe:
        """The recipe with one loss in every stage."""
        return Recipe(tuple(replace(stage, loss=loss) for stage in self.stages))


def two_stages(first: Loss, second: Loss = "psnr", learning_rate: float = 1.2e-3) -> Recipe:
    """The default recipe with other losses, or another rate to begin with."""
    return Recipe((Stage(first, 0.9, learning_rate), Stage(second, 0.1, learning_rate / 12)))
