"""The model card beside a weights file: how it was made and how good it is, by the same run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from models.spec import ModelSpec
from models.weights import Profile, WeightsError, digest, facts
from training.quality import ImageQuality
from training.settings import Settings, recipe_for

_USE = {
    "clean": "Frames that were never compressed: rendered by a game, or decoded without loss. On frames decoded from\n"
    "a lossy stream it sharpens the artefacts too and gains little or nothing over bicubic.",
    "compressed": "Frames decoded from a lossy stream (JPEG quality 90, the report's protocol).",
}


def training_facts(settings: Settings, seconds: float, patches: int, stored_as: str) -> dict[str, str]:
    """What a weights file keeps of its training, for the card."""
    return {
        "settings": json.dumps(asdict(settings)),
        "seconds": f"{seconds:.0f}",
        "patches": str(patches),
        "machine": _machine(),
        "stored_as": stored_as,
    }


def measured_before(
    report: Path, spec: ModelSpec, scale: int, profile: Profile, weights: Path
) -> dict[str, list[ImageQuality]]:
    """What `python -m benchmark quality --json` has measured of these very weights, as `write_card` takes it.

    Raises:
        WeightsError: there is nothing of them in the report, or it is none.
        OSError: it cannot be read.
    """
    found: dict[str, list[ImageQuality]] = {}
    try:
        told: Any = json.loads(report.read_text())
        for each in told if isinstance(told, list) else [told]:
            same = (each["model"], each["scale"], each["profile"]) == (spec.name, scale, profile)
            if same and each["weights"] and digest(weights).startswith(each["weights"]):
                found[frames_of(each["jpeg"])] = [
                    ImageQuality(
                        bicubic=picture["psnr_rgb_bicubic"],
                        bicubic_pillow=picture["psnr_rgb_bicubic_pillow"],
                        lanczos=picture["psnr_rgb_lanczos"],
                        image=picture["image"],
                        category=picture["category"],
                        network=picture["psnr_rgb"],
                    )
                    for picture in each["per_image"]
                ]
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{report} is no report of 'python -m benchmark quality --json': {error!r}") from None
    if not found:
        raise WeightsError(f"{report} has nothing of {weights.name} as it is now")
    return found


def frames_of(jpeg: int | None) -> str:
    """What LR frames went through, in words."""
    return "clean" if jpeg is None else f"JPEG {jpeg}"


def write_card(
    weights: Path, spec: ModelSpec, scale: int, profile: Profile, results: Mapping[str, Sequence[ImageQuality]]
) -> Path:
    """Write `<weights>.md` from the weights' header and measured quality, and return its path.

    The results are measured on the test pictures, by what their LR frames went through, e.g. "clean" or "JPEG 90".

    Raises:
        WeightsError: the header tells nothing of a training.
    """
    made = facts(weights)
    if not made.keys() >= {"settings", "seconds", "patches", "machine"}:
        raise WeightsError(f"{weights} has no record of its training, so there is nothing to write a card from")
    settings: dict[str, Any] = json.loads(made["settings"])
    table = "\n".join(f"| {name} | {_plain(value)} |" for name, value in settings.items())
    options = [f"--model {spec.name} --scale {scale} --profile {profile} --steps {settings['steps']}"]
    if settings["batch_size"] != Settings.batch_size:
        options.append(f"--batch-size {settings['batch_size']}")
    if settings["hr_patch"] != Settings.hr_patch:
        options.append(f"--hr-patch {settings['hr_patch']}")
    if settings["mixed_precision"]:
        options.append("--mixed-precision")
    rate = settings["recipe"]["stages"][0]["learning_rate"]
    if rate != spec.recipe.stages[0].learning_rate:
        options.append(f"--learning-rate {rate:g}")
    losses = [stage["loss"] for stage in settings["recipe"]["stages"]]
    if losses != [stage.loss for stage in recipe_for(profile, spec.recipe).stages]:
        options.append(f"--loss {losses[0]}")
    if settings["teacher"]:
        options.append(f"--teacher {settings['teacher']}")
    if settings["prune_from"]:
        options.append(f"--prune-from {settings['prune_from']}")
    if settings["start_from"]:
        options.append(f"--start-from {settings['start_from'].split()[0]}")
    command = f"python -m training {' '.join(options)}"
    lines = [
        f"# {spec.title} x{scale}, profile `{profile}`",
        "",
        f"{spec.title} by team {spec.team}, section {spec.section} of the NTIRE 2023 Real-Time 4K Super-Resolution",
        "report; trained from scratch by this project. Licence: Apache-2.0, as the project.",
        "",
        f"- Command: `{command}`",
        f"- Training time: {float(made['seconds']) / 60:.0f} minutes on {made['machine']}",
        f"- HR patches: {made['patches']}",
        f"- Stored as {made.get('stored_as', 'float32')}",
        f"- SHA-256: `{digest(weights)}`",
        "",
        "## Intended use and limits",
        "",
        _USE[profile],
        "It is small and meant to be faithful: it restores edges, it does not invent texture.",
        "",
        "## Quality",
        "",
        "PSNR over RGB in dB on whole pictures that training never saw; docs/data.md says how they are split. LR",
        "frames are Pillow's antialiased bicubic. Bicubic is torch's (a = -0.75), as the report's organisers use it.",
        "",
        *(line for frames, measured in results.items() for line in _table(frames, measured)),
        "",
        "## Settings",
        "",
        "| setting | value |",
        "|---|---|",
        table,
        "",
    ]
    path = weights.with_suffix(".md")
    path.write_text("\n".join(lines))
    return path


def _table(frames: str, results: Sequence[ImageQuality]) -> list[str]:
    if not results:
        return [f"Frames: {frames}. Not measured: there were no test pictures.", ""]
    rows = [
        f"Frames: {frames}.",
        "",
        "| picture | shows | network | bicubic | gain | gain over Pillow's bicubic | Lanczos' gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in sorted(results, key=lambda each: (each.category, each.image)):
        rows.append(f"| {each.image} | {each.category} | {_columns([each], mean)} |")
    for category in sorted({each.category for each in results}):
        rows.append(f"| **mean** | {category} | {_columns([e for e in results if e.category == category], mean)} |")
    for name, average in (("**mean**", mean), ("**median**", median)):
        rows.append(f"| {name} | all | {_columns(results, average)} |")
    return [*rows, ""]


def _columns(results: Sequence[ImageQuality], average: Callable[[list[float]], float]) -> str:
    return " | ".join(
        (
            f"{average([each.network for each in results]):.2f}",
            f"{average([each.bicubic for each in results]):.2f}",
            f"{average([each.gain for each in results]):+.2f}",
            f"{average([each.network - each.bicubic_pillow for each in results]):+.2f}",
            f"{average([each.lanczos - each.bicubic for each in results]):+.2f}",
        )
    )


def _plain(value: object) -> object:
    """A setting for people: structures in words, all else as it is."""
    if not isinstance(value, dict):
        return value
    if "stages" not in value:
        return ", ".join(f"{name} {setting}" for name, setting in value.items())
    stages: tuple[dict[str, Any], ...] = value["stages"]
    return "; ".join(f"{s['share']:.0%} {s['loss']} from {s['learning_rate']:g}" for s in stages)


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    used, cores = torch.get_num_threads(), os.cpu_count() or 1
    return f"{cores} CPU cores" if used >= cores else f"{used} of {cores} CPU cores"
