"""`python -m training`: train a network, or fetch pictures to train on."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from models.recipe import Recipe
from models.registry import UnknownModelError, UnsupportedScaleError, get, require_scale
from models.weights import PROFILES, Profile, WeightsError, digest, load_file, save, variant_name, weights_path
from training.card import write_card
from training.data import DataError, fetch
from training.patches import Batches, NoPatchesError, list_images, load_patches
from training.quality import evaluate, summary
from training.settings import Settings
from training.trainer import CheckpointError, Trainer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console()


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
    profile: Annotated[str, typer.Option(help="clean: rendered frames; compressed: decoded streams.")] = "clean",
    images: Annotated[Path, typer.Option(help="Folder of HR pictures to train on.")] = Path("data/train"),
    validation: Annotated[Path, typer.Option(help="Folder of pictures to watch.")] = Path("data/validation"),
    test: Annotated[Path, typer.Option(help="Folder of pictures to measure on in the end.")] = Path("data/test"),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = Settings.steps,
    batch_size: Annotated[int, typer.Option(min=1, help="Patches per step.")] = Settings.batch_size,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="At the first stage's peak, instead of the method's own.")
    ] = None,
    start_from: Annotated[Path | None, typer.Option(help="Weights to start from instead of random ones.")] = None,
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="All stages but the last in bfloat16.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the initial weights and of every batch.")] = Settings.seed,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
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
    if profile not in PROFILES:
        raise OptionError(f"unknown profile {profile!r}; known are: {', '.join(PROFILES)}")
    chosen: Profile = profile
    if device == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda: this machine has no usable GPU")
    start = load_file(spec, scale, start_from) if start_from else None
    first, *others = spec.recipe.stages
    if learning_rate is not None:
        first = replace(first, learning_rate=learning_rate)
    settings = Settings(
        recipe=Recipe((first, *others)),
        steps=steps,
        batch_size=batch_size,
        start_from=f"{start_from} ({digest(start_from)[:12]})" if start_from else "",
        mixed_precision=mixed_precision,
        seed=seed,
        jpeg_share=0.7 if chosen == "compressed" else 0.0,
    )
    if fresh:
        shutil.rmtree(runs / variant_name(spec.name, scale, chosen), ignore_errors=True)
    patches = load_patches(images, settings.hr_patch)
    console.print(f"{len(patches)} patches of {settings.hr_patch}x{settings.hr_patch} from {images}")
    trainer = Trainer(spec, scale, chosen, settings, runs=runs, device=device, start=start)
    trained = trainer.run(Batches(patches, scale, settings), list_images(validation)[:8])
    path = weights_path(spec, scale, chosen, weights)
    save(trained.network, path)
    results = evaluate(
        trained.network,
        list_images(test),
        scale,
        input_range=spec.input_range,
        jpeg_quality=90 if chosen == "compressed" else None,
    )
    write_card(path, spec, scale, chosen, settings, trained.seconds, len(patches), results)
    if results:
        console.print(f"test: {summary(results)}")
    console.print(f"weights: {path}")


@app.command()
def data(
    folder: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("data"),
) -> None:
    """Fetch pictures from Debian packages (about 3 GB of downloads) into train, validation and test folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in fetch(folder).items():
        console.print(f"{folder / split}: {count} pictures")


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
