"""`python -m training`: train a network, or fetch pictures to train on."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import nn

from models.bicubic_plus_plus import CHANNELS, BicubicPlusPlus
from models.recipe import Loss, Recipe
from models.registry import UnknownModelError, UnsupportedScaleError, get, require_scale, specs
from models.reparam import reparameterise
from models.spec import ModelSpec
from models.weights import (
    DEFAULT_PROFILE,
    PROFILES,
    Profile,
    WeightsError,
    digest,
    load,
    load_file,
    save,
    variant_name,
    weights_path,
)
from training.card import frames_of, measured_before, training_facts, write_card
from training.data import SPLITS, fetch
from training.degradation import PROTOCOL_JPEG, TRAINING
from training.losses import LOSSES
from training.pack import pack
from training.packages import DataError
from training.patches import Batches, NoPatchesError, load_patches
from training.pictures import list_images
from training.pruning import prune
from training.quality import ImageQuality, evaluate, lost_in_half, summary
from training.render import render
from training.settings import Settings, recipe_for
from training.trainer import WATCHED_PIXELS, CheckpointError, Trained, Trainer
from training.zoo import Job, train_all

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console()


_PRUNED_SHARE = 1 / 3
"""Of a run's time or steps that goes to the network that is to be pruned."""
_PATCH_MULTIPLE = 12
"""Sides of HR patches that every network takes at both scales."""
_LOST_AT_MOST = 0.001
"""In dB, if weights are stored as float16."""
_WATCHED = 10
"""Pictures that a run is watched by, at least, if there are so many."""


class Fitted(NamedTuple):
    """What a run ended with."""

    settings: Settings
    trained: Trained


class OptionError(ValueError):
    """An option has a value that means nothing here."""


_USER_ERRORS = (
    OptionError,
    UnknownModelError,
    UnsupportedScaleError,
    WeightsError,
    NoPatchesError,
    CheckpointError,
    DataError,
    OSError,
)


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="The method's name, e.g. runet.")] = "runet",
    scale: Annotated[int, typer.Option(help="2 (1080p to 4K) or 3 (720p to 4K).")] = 2,
    profile: Annotated[
        str, typer.Option(help="clean: rendered frames; compressed: decoded streams.")
    ] = DEFAULT_PROFILE,
    images: Annotated[Path, typer.Option(help="Folder of HR pictures to train on.")] = Path("data/train"),
    validation: Annotated[Path, typer.Option(help="Folder of pictures to watch.")] = Path("data/validation"),
    test: Annotated[Path, typer.Option(help="Folder of pictures to measure on in the end.")] = Path("data/test"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = Settings.steps,
    budget: Annotated[
        str, typer.Option(help="As many steps as fit into this time, e.g. 20m, instead of --steps.")
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Patches per step.")] = Settings.batch_size,
    hr_patch: Annotated[
        int, typer.Option(min=48, help="Side of the HR patches, a multiple of 12; packed ones have their own.")
    ] = Settings.hr_patch,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="At the first stage's peak, instead of the method's own.")
    ] = None,
    loss: Annotated[
        str,
        typer.Option(help="In every stage. By default rmse for compressed frames, for clean ones the method's own."),
    ] = "",
    start_from: Annotated[Path | None, typer.Option(help="Weights to start from instead of random ones.")] = None,
    teacher: Annotated[str, typer.Option(help="A trained method to imitate besides the truth, e.g. r2cnet.")] = "",
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="All stages but the last in bfloat16.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Let torch compile the network; for GPUs.")] = False,
    prune_from: Annotated[
        int, typer.Option(min=0, help="bicubic_plus_plus: train this many channels first, for a third of the time.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of every batch.")] = Settings.seed,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that make batches; by default 1, for cuda all cores but one.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of checkpoints and curves.")] = Path("runs"),
    weights: Annotated[Path, typer.Option(help="Folder that receives the weights and the card.")] = Path("weights"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the checkpoint of an earlier run.")] = False,
) -> None:
    """Train a network; a run that was stopped goes on where it was."""
    if context.invoked_subcommand is not None:
        return
    spec = get(model)
    require_scale(spec, scale)
    if not spec.learned:
        raise OptionError(f"model {spec.name!r} has nothing to train")
    chosen = _profile(profile)
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: this machine has no usable GPU")
    seconds = _seconds(budget) if budget else None
    if hr_patch % _PATCH_MULTIPLE:
        raise OptionError(f"--hr-patch {hr_patch}: not a multiple of {_PATCH_MULTIPLE}")
    if prune_from and (spec.name != "bicubic_plus_plus" or prune_from <= CHANNELS or start_from):
        raise OptionError(
            f"--prune-from {prune_from}: only bicubic_plus_plus is pruned, from more than {CHANNELS}, afresh"
        )
    start = load_file(spec, scale, start_from) if start_from else None
    master = _teacher(teacher, scale, chosen, weights) if teacher else None
    recipe = spec.recipe.with_loss(_loss(loss)) if loss else recipe_for(chosen, spec.recipe)
    first, *others = recipe.stages
    if learning_rate is not None:
        first = replace(first, learning_rate=learning_rate)
    settings = Settings(
        recipe=Recipe((first, *others)),
        steps=steps,
        batch_size=batch_size,
        hr_patch=hr_patch,
        degradation=TRAINING[chosen],
        start_from=f"{start_from} ({digest(start_from)[:12]})" if start_from else "",
        teacher=teacher,
        prune_from=prune_from,
        mixed_precision=mixed_precision,
        seed=seed,
    )
    wide_name = f"{spec.name}_{prune_from}"
    if fresh:
        for name in (spec.name, wide_name):
            shutil.rmtree(runs / variant_name(name, scale, chosen), ignore_errors=True)
    makers = workers or (max(1, (os.cpu_count() or 1) - 1) if device == "cuda" else 1)
    patches = load_patches(images, hr_patch)
    settings = replace(settings, hr_patch=patches.side)
    console.print(f"{len(patches)} patches of {settings.hr_patch}x{settings.hr_patch} from {images}")

    def fit(spec: ModelSpec, settings: Settings, start: nn.Module | None, seconds: float | None) -> Fitted:
        def trainer(settings: Settings) -> Trainer:
            made = Trainer(
                spec,
                scale,
                chosen,
                settings,
                runs=runs,
                device=device,
                start=start,
                teacher=master,
                teacher_range=get(teacher).input_range if teacher else 1.0,
            )
            if compiled:
                made.compile()
            return made

        checkpoint_every = 2000
        if seconds is not None:
            count = trainer(settings).steps_within(seconds, Batches(patches, scale, settings), makers)
            settings = replace(settings, steps=count)
            checkpoint_every = max(1, count // 10)
            console.print(f"{count} steps fit into {seconds:.0f} s")
        batches = Batches(patches, scale, settings)
        run = trainer(settings)
        if start is None and run.solve_start(batches):
            console.print("the last convolution starts as its least-squares solution")
        watched = _some(list_images(validation))
        return Fitted(settings, run.run(batches, watched, checkpoint_every=checkpoint_every, workers=makers))

    spent, steps_before = 0.0, 0
    if prune_from:
        share = _PRUNED_SHARE
        wide = fit(
            replace(spec, name=wide_name, build=lambda scale: BicubicPlusPlus(scale, prune_from)),
            replace(settings, steps=max(1, round(share * settings.steps))),
            None,
            None if seconds is None else share * seconds,
        )
        assert isinstance(wide.trained.network, BicubicPlusPlus)
        few = Batches(patches, scale, wide.settings)
        start = prune(wide.trained.network.cpu(), CHANNELS, [few[step] for step in range(min(4, len(few)))])
        settings = replace(settings, steps=max(1, round((1 - share) * settings.steps)))
        seconds = None if seconds is None else (1 - share) * seconds
        spent, steps_before = wide.trained.seconds, wide.settings.steps
    settings, trained = fit(spec, settings, start, seconds)
    path = weights_path(spec, scale, chosen, weights)
    whole = replace(settings, steps=steps_before + settings.steps)
    dtype, reason = _stored_as(spec, scale, chosen, trained.network, _some(list_images(validation)))
    save(trained.network, path, training_facts(whole, spent + trained.seconds, len(patches), reason), dtype)
    console.print(f"weights: {path}, {reason}")
    _card(spec, scale, chosen, path, test)


def _stored_as(
    spec: ModelSpec, scale: int, profile: Profile, network: nn.Module, pictures: list[Path]
) -> tuple[torch.dtype, str]:
    """What trained weights are to be stored as, and why."""
    if not pictures:
        return torch.float32, "float32: there were no validation pictures to try float16 on"
    measure = partial(
        evaluate,
        images=pictures,
        scale=scale,
        input_range=spec.input_range,
        jpeg_quality=PROTOCOL_JPEG[profile],
        most_pixels=WATCHED_PIXELS,
    )
    lost = lost_in_half(network, measure)
    # Not a number is not enough either.
    if lost < _LOST_AT_MOST:
        return torch.float16, f"float16: it costs {max(0.0, lost):.4f} dB on the validation pictures"
    return torch.float32, f"float32: float16 would cost {lost:.4f} dB on the validation pictures"


def _card(spec: ModelSpec, scale: int, profile: Profile, weights: Path, test: Path) -> None:
    """Measure trained weights on the frames they are meant for, and on the other kind; write their card."""
    network = reparameterise(load_file(spec, scale, weights))
    pictures = list_images(test) if test.is_dir() else []
    results: dict[str, list[ImageQuality]] = {}
    for kind in sorted(PROFILES, key=lambda kind: kind != profile):
        jpeg = PROTOCOL_JPEG[kind]
        frames = frames_of(jpeg)
        results[frames] = evaluate(
            network, track(pictures, frames), scale, input_range=spec.input_range, jpeg_quality=jpeg
        )
        if results[frames]:
            console.print(f"test, {frames}: {summary(results[frames])}")
    console.print(f"card: {write_card(weights, spec, scale, profile, results)}")


def _teacher(name: str, scale: int, profile: Profile, weights: Path) -> nn.Module:
    """The trained network called `name`, deployed, to be imitated."""
    return reparameterise(load(get(name), scale, profile, weights))


def _seconds(budget: str) -> float:
    """A budget such as 90s, 20m or 1.5h in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match or float(match[1]) <= 0:
        raise OptionError(f"--budget {budget!r}: a number and a unit are expected, e.g. 90s, 20m or 1.5h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def data(
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("data"),
    rendered: Annotated[bool, typer.Option(help="Render scenes too: some minutes of every core.")] = True,
) -> None:
    """Fetch pictures from Debian packages (about 3 GB of downloads) into train, validation and test folders."""
    folder.mkdir(parents=True, exist_ok=True)
    fetch(folder)
    if rendered:
        for failure in render(folder):
            console.print(f"not rendered: {failure}")
    for split in SPLITS:
        console.print(f"{folder / split}: {len(list_images(folder / split))} pictures")


@app.command()
def zoo(
    budget: Annotated[str, typer.Option(help="For each method and scale, e.g. 20m.")],
    models: Annotated[str, typer.Option(help="Names, separated by commas, or 'all'.")] = "all",
    profile: Annotated[str, typer.Option(help="clean or compressed.")] = DEFAULT_PROFILE,
    jobs: Annotated[int, typer.Option(min=1, help="How many are trained at the same time.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Those that have weights too.")] = False,
    images: Annotated[Path, typer.Option(help="Folder of HR pictures, or a file of packed patches.")] = Path(
        "data/train"
    ),
    validation: Annotated[Path, typer.Option(help="Folder of pictures to watch.")] = Path("data/validation"),
    test: Annotated[Path, typer.Option(help="Folder of pictures to measure on in the end.")] = Path("data/test"),
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="All stages but the last in bfloat16.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Let torch compile the networks; for GPUs.")] = False,
    runs: Annotated[Path, typer.Option(help="Folder of checkpoints, curves and logs.")] = Path("runs"),
    weights: Annotated[Path, typer.Option(help="Folder that receives the weights and the cards.")] = Path("weights"),
) -> None:
    """Train many methods, each for the same time, in processes of their own."""
    chosen = _profile(profile)
    _seconds(budget)
    wanted = (
        [spec for spec in specs().values() if spec.learned] if models == "all" else list(map(get, models.split(",")))
    )
    paths = {"images": images, "validation": validation, "test": test, "runs": runs, "weights": weights}
    options = [f"--budget={budget}", f"--device={device}", *(f"--{name}={path}" for name, path in paths.items())]
    options += ["--mixed-precision"] * mixed_precision + ["--compile"] * compiled + ["--fresh"] * again
    if device == "cuda":
        options.append(f"--workers={max(1, (os.cpu_count() or 1) // jobs)}")
    work = [
        Job(spec.name, scale, chosen, runs / f"{variant_name(spec.name, scale, chosen)}.log", tuple(options))
        for spec in wanted
        for scale in spec.scales
        if again or not weights_path(spec, scale, chosen, weights).exists()
    ]
    failed = 0
    for number, done in enumerate(train_all(work, jobs), 1):
        failed += done.failed
        console.print(f"{number}/{len(work)} {done.job.name}: {'FAILED ' if done.failed else ''}{done.last_words}")
    if failed:
        raise OptionError(f"{failed} of {len(work)} runs failed; their logs are in {runs}")


@app.command()
def card(
    model: Annotated[str, typer.Option(help="Names, separated by commas, or 'all' that have weights.")],
    scale: Annotated[int | None, typer.Option(help="2 or 3; by default those that have weights.")] = None,
    profile: Annotated[str, typer.Option(help="clean or compressed.")] = DEFAULT_PROFILE,
    test: Annotated[Path, typer.Option(help="Folder of pictures to measure on.")] = Path("data/test"),
    weights: Annotated[Path, typer.Option(help="Folder of weights and cards.")] = Path("weights"),
    measured: Annotated[
        Path | None, typer.Option(help="A report of 'python -m benchmark quality --json' to take the numbers from.")
    ] = None,
) -> None:
    """Measure weights again and write their cards, e.g. after training on a machine without the test pictures."""
    chosen = _profile(profile)
    found = [
        (spec, each, path)
        for spec in (specs().values() if model == "all" else map(get, model.split(",")))
        for each in spec.scales
        if scale in (None, each) and (path := weights_path(spec, each, chosen, weights)).exists()
    ]
    if not found:
        raise WeightsError(f"no weights of {model} for profile {chosen!r} in {weights}")
    for spec, each, path in found:
        console.print(path.stem)
        if measured is None:
            _card(spec, each, chosen, path, test)
        else:
            results = measured_before(measured, spec, each, chosen, path)
            console.print(f"card: {write_card(path, spec, each, chosen, results)}")


@app.command(name="pack")
def pack_patches(
    images: Annotated[Path, typer.Option(help="Folder of HR pictures to train on.")] = Path("data/train"),
    output: Annotated[Path, typer.Option(help="The file, ending in .patches; --images takes it.")] = Path(
        "data/train.patches"
    ),
    megabytes: Annotated[float, typer.Option(min=0.1, help="The file's greatest size.")] = 50.0,
) -> None:
    """Put training patches into a small file, to train on a machine that has no pictures."""
    count = pack(load_patches(images, Settings.hr_patch), output, megabytes)
    console.print(f"{output}: {count} patches, {output.stat().st_size / 2**20:.1f} MB")


def _some(pictures: list[Path]) -> list[Path]:
    """Enough of them to watch a run by, from everywhere in the list."""
    return pictures[:: max(1, len(pictures) // _WATCHED)]


def _loss(name: str) -> Loss:
    named: dict[str, Loss] = {loss: loss for loss in LOSSES}
    if name not in named:
        raise OptionError(f"--loss {name!r}: known are {', '.join(named)}")
    return named[name]


def _profile(name: str) -> Profile:
    if name not in PROFILES:
        raise OptionError(f"unknown profile {name!r}; known are: {', '.join(PROFILES)}")
    chosen: Profile = name
    return chosen


def main() -> None:
    """Run the command line; what a user can mend is one line and exit code 2."""
    try:
        app(prog_name="python -m training")
    except _USER_ERRORS as error:
        print(f"training: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("training: stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
