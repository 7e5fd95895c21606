"""The settings of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from models.recipe import Loss, Recipe, Stage
from models.weights import Profile
from training.degradation import Degradation

_PROFILE_LOSS: Mapping[Profile, Loss] = MappingProxyType({"compressed": "rmse"})
"""What every stage minimises, whatever the method's own recipe says; docs/decisions.md has the reason."""


def recipe_for(profile: Profile, own: Recipe) -> Recipe:
    """A method's own recipe as it is used for a profile, if no other loss is asked for."""
    loss = _PROFILE_LOSS.get(profile)
    return own.with_loss(loss) if loss else own


@dataclass(frozen=True)
class Settings:
    """All that a run depends on, beside the network and the pictures.

    The defaults fit two CPU cores: about 20 steps a second of RUNet x2 on one of them.
    """

    recipe: Recipe = field(default_factory=Recipe)
    """What is minimised, when, at which rate; each method has its own."""
    steps: int = 20_000
    batch_size: int = 1
    hr_patch: int = 360
    """Side of the HR patches in pixels; divisible by 2 * 3 and 3 * 4, what RUNet unshuffles."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of Adam, which moves the biases."""
    warmup_steps: int = 200
    clip_gradient_norm: float = 0.05
    ema_decay: float = 0.998
    """The exponential moving average of the weights is what is validated and shipped."""
    enlarged_share: float = 0.5
    """Of the patches that are a part of one, enlarged: most of a 4K frame is less sharp than a 4K camera could be."""
    pixelated_share: float = 0.04
    """Of the patches that become drawn pixels, blocks of one colour: the pictures to train on have none, games do."""
    photograph_share: float = 0.7
    """Of the patches that are of photographs, where the pictures have them and others; docs/decisions.md says why."""
    soft_share: float = 0.2
    """Of the patches whose contrast is lowered, by up to eight times: most of a 4K frame has less than they have."""
    degradation: Degradation = field(default_factory=Degradation)
    """What makes the LR patches."""
    mixed_precision: bool = False
    """Run all stages but the last in bfloat16: 1.6 times the steps a second for RUNet x2 on a CPU that has it."""
    start_from: str = ""
    """A weights file to start from, and its digest; empty: start from random weights and a solved last convolution."""
    teacher: str = ""
    """Weights of the network that is imitated, and their digest; empty: none is."""
    teacher_share: float = 0.5
    """Of the loss that is measured against the teacher's pictures instead of the true ones."""
    prune_from: int = 0
    """Channels of the network that was trained first and pruned to this one; 0: none was."""
    seed: int = 0

    def stage(self, step: int) -> tuple[int, Stage]:
        """The number of the stage that `step` belongs to, from 0, and the stage."""
        for number, end in enumerate(self._ends):
            if step < end:
                return number, self.recipe.stages[number]
        return len(self.recipe.stages) - 1, self.recipe.stages[-1]

    def learning_rate(self, step: int) -> float:
        """The rate at `step`: a short warm-up, then a cosine from each stage's rate to the next one's, then to zero."""
        number, stage = self.stage(step)
        begin = self._ends[number - 1] if number else 0
        position = (step - begin) / max(1, self._ends[number] - begin)
        stages = self.recipe.stages
        floor = stages[number + 1].learning_rate if number + 1 < len(stages) else 0.0
        warmup = min(1.0, (step + 1) / self.warmup_steps)
        return warmup * (floor + (stage.learning_rate - floor) * 0.5 * (1 + math.cos(math.pi * position)))

    @property
    def _ends(self) -> list[int]:
        """The step before which each stage ends."""
        shares = [stage.share for stage in self.recipe.stages]
        return [round(self.steps * sum(shares[: number + 1])) for number in range(len(shares))]
