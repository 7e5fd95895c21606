"""The training loop: resumable, seeded, and honest about what it reached."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from models.spec import ModelSpec
from models.weights import Profile, variant_name
from training.patches import Batches, batch_stream
from training.quality import evaluate, summary
from training.recipe import Recipe


class CheckpointError(RuntimeError):
    """A checkpoint cannot be resumed with these settings."""


@dataclass
class _State:
    """Everything a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Trained:
    """The result of a run."""

    network: nn.Module
    """The averaged weights, in training form and eval mode."""
    seconds: float


class Trainer:
    """Trains one network at one scale.

    Args:
        spec: the method.
        scale: 2 or 3.
        profile: names the run and its checkpoint.
        recipe: the settings; a checkpoint made with others is refused.
        runs: the folder that keeps checkpoints and learning curves.
        device: "cpu" or "cuda".
        start: a network of the same kind whose weights are the first; None starts from random ones.
    """

    def __init__(
        self,
        spec: ModelSpec,
        scale: int,
        profile: Profile,
        recipe: Recipe,
        *,
        runs: Path,
        device: str = "cpu",
        start: nn.Module | None = None,
    ) -> None:
        self._scale = scale
        self._profile: Profile = profile
        self._recipe = recipe
        self._device = torch.device(device)
        self._folder = runs / variant_name(spec.name, scale, profile)
        torch.manual_seed(recipe.seed)
        network = spec.build(scale).to(self._device)
        if start is not None:
            network.load_state_dict(start.state_dict())
        self._state = _State(
            network=network,
            average=copy.deepcopy(network).eval().requires_grad_(False),
            optimiser=torch.optim.Adam(network.parameters(), lr=recipe.l1_learning_rate, betas=recipe.betas),
        )

    def run(
        self, batches: Batches, validation: list[Path], *, checkpoint_every: int = 2000, workers: int = 1
    ) -> Trained:
        """Train from the checkpoint, if there is one, to the recipe's last step."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        state, recipe = self._state, self._recipe
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        began = time.monotonic() - state.seconds
        with Progress(*columns) as progress:
            bar = progress.add_task(self._folder.name, total=recipe.steps, completed=state.step, note="")
            stream = batch_stream(batches, state.step, workers)
            for lr, hr in stream:
                loss = self._step(lr, hr)
                state.step += 1
                if state.step % 50 == 0:
                    progress.update(bar, completed=state.step, note=f"loss {loss.item():.5f}")
                if state.step % checkpoint_every == 0 or state.step == recipe.steps:
                    state.seconds = time.monotonic() - began
                    self._save()
                    results = evaluate(
                        state.average,
                        validation,
                        self._scale,
                        jpeg_quality=90 if self._profile == "compressed" else None,
                        most_pixels=1_000_000,
                    )
                    note = f"step {state.step}, {state.seconds:.0f} s: {summary(results)}" if results else ""
                    progress.console.print(note)
                    with (self._folder / "curve.csv").open("a") as curve:
                        gain = sum(result.gain for result in results) / max(1, len(results))
                        curve.write(f"{state.step},{state.seconds:.1f},{loss.item():.6f},{gain:.4f}\n")
        return Trained(network=state.average, seconds=state.seconds)

    def _step(self, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        state, recipe = self._state, self._recipe
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(recipe, state.step)
        target = hr.to(self._device)
        mixed = recipe.mixed_precision and state.step < recipe.l1_steps
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed):
            output = state.network(lr.to(self._device)).float()
        loss = F.l1_loss(output, target) if state.step < recipe.l1_steps else _decibels(output, target)
        state.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_gradient_norm)
        state.optimiser.step()
        with torch.no_grad():
            # Young averages forget faster, or they would remember the initialisation.
            decay = min(recipe.ema_decay, (1 + state.step) / (10 + state.step))
            pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
            for mean, weight in pairs:
                mean.lerp_(weight, 1 - decay)
        return loss.detach()

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "checkpoint.pt"

    def _save(self) -> None:
        state = self._state
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(
            {
                "recipe": asdict(self._recipe),
                "step": state.step,
                "seconds": state.seconds,
                "network": state.network.state_dict(),
                "average": state.average.state_dict(),
                "optimiser": state.optimiser.state_dict(),
            },
            partial,
        )
        partial.replace(self._checkpoint)

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        saved = torch.load(self._checkpoint, map_location=self._device, weights_only=True)
        if saved["recipe"] != asdict(self._recipe):
            raise CheckpointError(
                f"{self._checkpoint} was made with other settings: start afresh with --fresh, or repeat its settings"
            )
        state = self._state
        state.network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        state.optimiser.load_state_dict(saved["optimiser"])
        state.step, state.seconds = saved["step"], saved["seconds"]


def _decibels(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L2 as it is measured: the mean over the patches of minus their PSNR.

    Plain L2 is ruled by the few patches with the hardest edges and gives up the flat ones: on whole pictures it lost
    0.16 dB of what L1 had reached, the worst one 0.4 dB.
    """
    return 10 * torch.log10(F.mse_loss(output, target, reduction="none").mean((1, 2, 3)) + 1e-7).mean()


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate at `step`: a short warm-up, a cosine to zero over L1, another over L2."""
    if step < recipe.l1_steps:
        peak, position, length = recipe.l1_learning_rate, step, recipe.l1_steps
    else:
        peak, position, length = recipe.l2_learning_rate, step - recipe.l1_steps, recipe.steps - recipe.l1_steps
    warmup = min(1.0, (step + 1) / recipe.warmup_steps)
    # The L1 phase ends at the rate L2 starts with, not at zero, so that no steps are idle.
    floor = recipe.l2_learning_rate if step < recipe.l1_steps else 0.0
    return warmup * (floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * position / length)))
