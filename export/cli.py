"""The command line of `python export/`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from export.errors import ExportError
from export.exporter import export_variant
from export.repository import check_writable
from models.registry import UnknownModelError, UnsupportedScaleError, get, require_scale, specs
from models.spec import ModelSpec
from models.weights import DEFAULT_PROFILE, PROFILES, WEIGHTS_DIR, Profile, WeightsError, weights_path

REPOSITORY = Path(__file__).resolve().parent.parent / "model_repository"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True)


class _Scale(StrEnum):
    X2 = "2"
    X3 = "3"
    ALL = "all"


class _Format(StrEnum):
    ONNX = "onnx"
    TENSORRT = "tensorrt"


class _PixelFormat(StrEnum):
    RGB24 = "rgb24"
    NV12 = "nv12"


class _Precision(StrEnum):
    FP32 = "fp32"
    FP16 = "fp16"


class _Profile(StrEnum):
    CLEAN = "clean"
    COMPRESSED = "compressed"


@app.command()
def export(
    model: Annotated[str, typer.Option(help="The method's name, e.g. runet; 'all' for every method.")],
    scale: Annotated[_Scale, typer.Option(help="2 (1080p to 4K), 3 (720p to 4K), or every scale it has.")] = _Scale.ALL,
    fmt: Annotated[_Format, typer.Option("--format", help="tensorrt needs TensorRT and a GPU.")] = _Format.ONNX,
    precision: Annotated[_Precision, typer.Option(help="Inside the graph; frames are uint8.")] = _Precision.FP32,
    profile: Annotated[
        _Profile | None,
        typer.Option(
            help=f"Which training: rendered or decoded frames. By default each that has weights; of 'all' methods "
            f"{DEFAULT_PROFILE} alone.",
            show_default=False,
        ),
    ] = None,
    pixel_format: Annotated[
        list[_PixelFormat] | None,
        typer.Option(
            help="Of the frames, in and out; may be repeated. By default every format, of 'all' methods rgb24 alone.",
            show_default=False,
        ),
    ] = None,
    repository: Annotated[Path, typer.Option(help="The Triton model repository to write.")] = REPOSITORY,
    version: Annotated[
        int,
        typer.Option(min=1, help="Its version in the repository; others stay beside it, and are served as before."),
    ] = 1,
    weights: Annotated[Path, typer.Option(help="The folder of trained weights.")] = WEIGHTS_DIR,
    untrained: Annotated[
        bool | None,
        typer.Option(
            "--untrained/--trained-only",
            help="Without weights: export random ones, to measure speed, or refuse. By default 'all' exports.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn trained weights into a checked model in a Triton repository."""
    chosen = list(specs().values()) if model == "all" else [get(model)]
    wanted = pixel_format or ([_PixelFormat.RGB24] if model == "all" else list(_PixelFormat))
    jobs: list[tuple[ModelSpec, int, Profile, _PixelFormat]] = [
        (spec, each, trained, pixels)
        for spec in chosen
        for each in (spec.scales if scale is _Scale.ALL else (require_scale(spec, int(scale.value)),))
        for trained in _profiles(spec, each, profile, weights, every=model != "all")
        for pixels in _PixelFormat
        if pixels in wanted
    ]
    check_writable(repository)
    for spec, each, trained, pixels in jobs:
        name = f"{spec.name} x{each} {trained} {pixels.value}"
        with console.status(name) as status:
            done = export_variant(
                spec,
                each,
                trained,
                pixel_format=pixels.value,
                repository=repository,
                weights=weights,
                fmt=fmt.value,
                precision=precision.value,
                version=version,
                allow_untrained=model == "all" if untrained is None else untrained,
                report=lambda step, name=name, status=status: status.update(f"{name}: {step}"),
            )
        console.print(
            f"{done.path}: {done.parameters:,} parameters, {fmt.value} {precision.value}, "
            f"max difference to PyTorch {done.parity.max_difference} grey level(s) "
            f"on {done.parity.share_different:.4%} of the values"
            + ("" if done.trained else "; UNTRAINED: random weights, its pictures mean nothing")
        )


def _profiles(spec: ModelSpec, scale: int, wanted: _Profile | None, weights: Path, *, every: bool) -> Sequence[Profile]:
    if wanted is not None:
        return [each for each in PROFILES if each == wanted.value]
    found: list[Profile] = [
        each for each in PROFILES if not spec.learned or weights_path(spec, scale, each, weights).is_file()
    ]
    return found if every and found else [DEFAULT_PROFILE]


def main() -> None:
    """Run the command line; what a user can mend is one line and exit code 2."""
    try:
        app(prog_name="python export/")
    except (ExportError, UnknownModelError, UnsupportedScaleError, WeightsError) as error:
        print(f"export: {error}", file=sys.stderr)
        raise SystemExit(2) from None
