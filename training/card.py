"""The model card beside a weights file: how it was made and how good it is, by the same run."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from models.spec import ModelSpec
from models.weights import Profile, digest
from training.quality import ImageQuality
from training.settings import Settings

_USE = {
    "clean": "Frames that were never compressed: rendered by a game, or decoded without loss. On frames decoded from\n"
    "a lossy stream it sharpens the artefacts too and gains little or nothing over bicubic.",
    "compressed": "Frames decoded from a lossy stream (JPEG quality 90, the report's protocol).",
}


def write_card(
    weights: Path,
    spec: ModelSpec,
    scale: int,
    profile: Profile,
    settings: Settings,
    seconds: float,
    patches: int,
    results: list[ImageQuality],
) -> Path:
    """Write `<weights>.md` and return its path."""
    table = "\n".join(f"| {name} | {_plain(value)} |" for name, value in asdict(settings).items())
    options = [f"--model {spec.name} --scale {scale} --profile {profile} --steps {settings.steps}"]
    if settings.mixed_precision:
        options.append("--mixed-precision")
    rate = settings.recipe.stages[0].learning_rate
    if rate != spec.recipe.stages[0].learning_rate:
        options.append(f"--learning-rate {rate:g}")
    if settings.teacher:
        options.append(f"--teacher {settings.teacher}")
    if settings.start_from:
        options.append(f"--start-from {settings.start_from.split()[0]}")
    command = f"python -m training {' '.join(options)}"
    lines = [
        f"# {spec.title} x{scale}, profile `{profile}`",
        "",
        f"{spec.title} by team {spec.team}, section {spec.section} of the NTIRE 2023 Real-Time 4K Super-Resolution",
        "report; trained from scratch by this project. Licence: Apache-2.0, as the project.",
        "",
        f"- Command: `{command}`",
        f"- Training time: {seconds / 60:.0f} minutes on {_machine()}, {patches} HR patches",
        f"- SHA-256: `{digest(weights)}`",
        "",
        "## Intended use and limits",
        "",
        _USE[profile],
        "It is small and meant to be faithful: it restores edges, it does not invent texture.",
        "",
        "## Quality",
        "",
        "PSNR over RGB in dB on whole pictures from packages that no training patch comes from (docs/data.md). The LR",
        "frame is Pillow's antialiased bicubic"
        + (" saved as JPEG quality 90" if profile == "compressed" else "")
        + ". Bicubic is torch's (a = -0.75), as the report's organisers use it.",
        "",
        *_table(results),
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


def _table(results: list[ImageQuality]) -> list[str]:
    if not results:
        return ["Not measured: there were no test pictures."]
    rows = [
        "| picture | network | bicubic | gain | gain over Pillow's bicubic | Lanczos' gain |",
        "|---|---|---|---|---|---|",
    ]
    for result in sorted(results, key=lambda result: result.image):
        rows.append(
            f"| {result.image} | {result.network:.2f} | {result.bicubic:.2f} | {result.gain:+.2f} "
            f"| {result.network - result.bicubic_pillow:+.2f} | {result.lanczos - result.bicubic:+.2f} |"
        )
    for name, average in (("**mean**", mean), ("**median**", median)):
        rows.append(
            f"| {name} | {average([r.network for r in results]):.2f} | {average([r.bicubic for r in results]):.2f} "
            f"| {average([r.gain for r in results]):+.2f} "
            f"| {average([r.network - r.bicubic_pillow for r in results]):+.2f} "
            f"| {average([r.lanczos - r.bicubic for r in results]):+.2f} |"
        )
    return rows


def _plain(value: object) -> object:
    """A setting for people: structures in words, all else as it is."""
    if not isinstance(value, dict):
        return value
    if "stages" not in value:
        return ", ".join(f"{name} {setting}" for name, setting in value.items())
    stages: tuple[dict[str, Any], ...] = value["stages"]
    return "; ".join(f"{s['share']:.0%} {s['loss']} from {s['learning_rate']:g}" for s in stages)


def _machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
