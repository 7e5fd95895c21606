"""The training loop: resumable, seeded, and honest about what it reached."""

from __future__ import annotations

import copy
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from models.layout import channels_last
from models.spec import ModelSpec
from models.weights import Profile, variant_name
from training.degradation import PROTOCOL_JPEG
from training.losses import LOSSES
from training.optimiser import Optimiser
from training.patches import Batches, batch_stream
from training.pool import pool_stream
from training.quality import evaluate, summary
from training.recording import Recording, on_side_stream
from training.settings import Settings
from training.start import solve_last_convolution

WATCHED_PIXELS = 1_000_000
"""Of each validation picture, about: enough to watch a run by."""
_STEPS_AHEAD = 2
"""Of the GPU, in a trial, that the CPU asks for at once."""
_RUNS_BEFORE_RECORDING = 4
"""On a GPU: libraries choose their kernels, and optimisers make their state, in the first runs of a step."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be resumed with these settings."""


@dataclass
class _State:
    """Everything a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimiser: Optimiser
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
        settings: what the run depends on; a checkpoint made with others is refused.
        runs: the folder that keeps checkpoints and learning curves.
        device: "cpu" or "cuda".
        start: a network of the same kind whose weights are the first, and whose batch normalisation keeps its
            statistics; None starts from random ones.
        teacher: a larger trained network of the same scale to imitate besides the truth.
        teacher_range: its input range.
    """

    def __init__(
        self,
        spec: ModelSpec,
        scale: int,
        profile: Profile,
        settings: Settings,
        *,
        runs: Path,
        device: str = "cpu",
        start: nn.Module | None = None,
        teacher: nn.Module | None = None,
        teacher_range: float = 1.0,
    ) -> None:
        self._scale = scale
        self._profile: Profile = profile
        self._settings = settings
        self._input_range = spec.input_range
        self._device = torch.device(device)
        self._folder = runs / variant_name(spec.name, scale, profile)
        torch.manual_seed(settings.seed)
        network = spec.build(scale).to(self._device)
        if self._device.type == "cuda":
            channels_last(network)
            torch.backends.cudnn.benchmark = True
        if start is not None:
            network.load_state_dict(start.state_dict())
            _keep_statistics(network)
        self._teacher = None if teacher is None else teacher.to(self._device).eval().requires_grad_(False)
        self._teacher_range = teacher_range
        self._forward: nn.Module = network
        self._state = _State(
            network=network,
            average=copy.deepcopy(network).eval().requires_grad_(False),
            optimiser=Optimiser(network, settings.betas, capturable=self._device.type == "cuda"),
        )
        # What changes from step to step, where a recorded step finds it.
        self._rate, self._forgotten = (torch.zeros((), device=self._device) for _ in range(2))
        self._run_before = Counter[int]()
        self._recordings: dict[int, Callable[..., Tensor]] = {}

    def compile(self) -> None:
        """Let torch compile the network: it pays where steps are many and a GPU runs them."""
        self._forward = torch.compile(self._state.network)  # pyright: ignore[reportAttributeAccessIssue]

    def solve_start(self, batches: Batches, several: int = 8) -> bool:
        """Solve the last convolution on the first batches, if the network has one that can be; see training.start."""
        if self._checkpoint.exists():
            return False
        network = self._state.network.cpu()
        solved = solve_last_convolution(network, [batches[step] for step in range(several)], self._input_range)
        network.to(self._device)
        self._state.average.load_state_dict(network.state_dict())
        return solved

    def steps_within(self, seconds: float, batches: Batches, workers: int = 1) -> int:
        """How many steps fit into this time, by a trial on a copy; the steps of the checkpoint, if there is one."""
        if self._checkpoint.exists():
            saved = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            return int(saved["settings"]["steps"])
        trial = copy.deepcopy(self)
        stream = chain.from_iterable(self._stream(batches, 0, workers) for _ in count())
        for _ in range(2 if self._device.type == "cpu" else _RUNS_BEFORE_RECORDING + 2):
            trial.step(*next(stream))
        began, steps = time.monotonic(), 0
        while steps < 2 or time.monotonic() - began < min(10.0, 0.05 * seconds):
            losses = [trial.step(*next(stream)) for _ in range(_STEPS_AHEAD)]
            losses[-1].item()  # a GPU has done what it was asked to do
            steps += len(losses)
        return max(2, int(seconds * steps / (time.monotonic() - began)))

    def run(
        self, batches: Batches, validation: list[Path], *, checkpoint_every: int = 2000, workers: int = 1
    ) -> Trained:
        """Train from the checkpoint, if there is one, to the last step of the settings."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        state, settings = self._state, self._settings
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        began = time.monotonic() - state.seconds
        with Progress(*columns) as progress:
            bar = progress.add_task(self._folder.name, total=settings.steps, completed=state.step, note="")
            for lr, hr in self._stream(batches, state.step, workers):
                loss = self.step(lr, hr)
                if state.step % 50 == 0:
                    progress.update(bar, completed=state.step, note=f"loss {loss.item():.5f}")
                if state.step % checkpoint_every == 0 or state.step == settings.steps:
                    state.seconds = time.monotonic() - began
                    self._save()
                    results = evaluate(
                        state.average,
                        validation,
                        self._scale,
                        jpeg_quality=PROTOCOL_JPEG[self._profile],
                        input_range=self._input_range,
                        most_pixels=WATCHED_PIXELS,
                    )
                    note = f"step {state.step}, {state.seconds:.0f} s: {summary(results)}" if results else ""
                    progress.console.print(note)
                    with (self._folder / "curve.csv").open("a") as curve:
                        gain = sum(result.gain for result in results) / max(1, len(results))
                        curve.write(f"{state.step},{state.seconds:.1f},{loss.item():.6f},{gain:.4f}\n")
        return Trained(network=state.average, seconds=state.seconds)

    def step(self, lr: Tensor, hr: Tensor) -> Tensor:
        """One optimiser step on a batch (LR, HR) of float RGB in [0, 1]; returns the loss before it."""
        state, settings = self._state, self._settings
        stage, _ = settings.stage(state.step)
        self._rate.fill_(settings.learning_rate(state.step))
        # Young averages forget faster, or they would remember the initialisation.
        self._forgotten.fill_(1 - min(settings.ema_decay, (1 + state.step) / (10 + state.step)))
        update = partial(self._update, stage)
        lr, hr = lr.to(self._device), hr.to(self._device)
        if self._device.type != "cuda":
            loss = update(lr, hr)
        elif self._run_before[stage] < _RUNS_BEFORE_RECORDING:
            loss = on_side_stream(update, lr, hr)
            self._run_before[stage] += 1
        else:
            if stage not in self._recordings:
                self._recordings = {stage: self._recorded(update, lr, hr)}
            loss = self._recordings[stage](lr, hr)
        state.step += 1
        return loss

    def _recorded(self, update: Callable[[Tensor, Tensor], Tensor], lr: Tensor, hr: Tensor) -> Callable[..., Tensor]:
        """The update as a CUDA graph; or as it is, slower, if a network does what no graph can hold."""
        try:
            return Recording(update, lr, hr)
        except RuntimeError as error:
            warnings.warn(f"steps are not recorded: {str(error).strip().splitlines()[0]}", stacklevel=2)
            return partial(on_side_stream, update)

    def _update(self, stage: int, lr: Tensor, hr: Tensor) -> Tensor:
        """What a step does on the device, at `_rate`; nothing in it depends on the number of the step."""
        state, settings = self._state, self._settings
        loss_of = LOSSES[settings.recipe.stages[stage].loss]
        mixed = settings.mixed_precision and stage + 1 < len(settings.recipe.stages)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=mixed, cache_enabled=False):
            output = self._forward(lr * self._input_range).float() / self._input_range
            imitated = self._taught(lr)
        loss = loss_of(output, hr)
        if imitated is not None:
            loss = (1 - settings.teacher_share) * loss + settings.teacher_share * loss_of(output, imitated)
        state.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(state.network.parameters(), settings.clip_gradient_norm)
        state.optimiser.step(self._rate)
        with torch.no_grad():
            pairs = zip(state.average.parameters(), state.network.parameters(), strict=True)
            for mean, weight in pairs:
                mean.lerp_(weight, self._forgotten)
            # The statistics of batch normalisation are averages already.
            for kept, current in zip(state.average.buffers(), state.network.buffers(), strict=True):
                kept.copy_(current)
        return loss.detach()

    def _taught(self, lr: Tensor) -> Tensor | None:
        """The teacher's pictures, RGB in [0, 1]."""
        if self._teacher is None:
            return None
        return self._teacher(lr * self._teacher_range).float() / self._teacher_range

    def _stream(self, batches: Batches, first_step: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
        if self._device.type == "cuda":
            return pool_stream(batches, first_step, workers, self._device)
        return batch_stream(batches, first_step, workers)

    @property
    def _checkpoint(self) -> Path:
        return self._folder / "checkpoint.pt"

    def _save(self) -> None:
        state = self._state
        partial = self._checkpoint.with_suffix(".partial")
        torch.save(
            {
                "settings": asdict(self._settings),
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
        if saved["settings"] != asdict(self._settings):
            raise CheckpointError(
                f"{self._checkpoint} was made with other settings: start afresh with --fresh, or repeat its settings"
            )
        state = self._state
        state.network.load_state_dict(saved["network"])
        state.average.load_state_dict(saved["average"])
        state.optimiser.load_state_dict(saved["optimiser"])
        state.step, state.seconds = saved["step"], saved["seconds"]


def _keep_statistics(network: nn.Module) -> None:
    """Normalise by the statistics that the network has, as when deployed, and not by those of each small batch."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
