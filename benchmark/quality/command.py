"""`python -m benchmark quality`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tritonclient.grpc import InferenceServerClient

from benchmark.complexity import PROTOCOL_SIZES
from benchmark.engines import infer
from benchmark.errors import BenchmarkError
from benchmark.quality import details, page
from benchmark.quality.measure import Measurements, Quality, Upscaler
from deploy.embedded import EmbeddedTriton
from deploy.local import REPOSITORY, ROOT
from models.registry import get, require_scale, specs
from models.reparam import reparameterise
from models.spec import ModelSpec
from models.weights import (
    DEFAULT_PROFILE,
    PROFILES,
    WEIGHTS_DIR,
    Profile,
    digest,
    load,
    variant_name,
    weights_path,
)
from training.data import category_of
from training.degradation import PROTOCOL_JPEG
from training.pictures import list_images
from training.quality import upscale

_TEST = Path("data/test")
_DOCS = ROOT / "docs"


def command(
    model: Annotated[str, typer.Option(help="One method, or 'all' that have weights.")] = "runet",
    scale: Annotated[int, typer.Option(help="2 or 3; with 'all' both.")] = 2,
    profile: Annotated[str, typer.Option(help="clean or compressed.")] = DEFAULT_PROFILE,
    images: Annotated[Path, typer.Option(help="Folder of HR pictures.")] = _TEST,
    jpeg: Annotated[
        int | None,
        typer.Option(min=0, max=100, help="Of the LR frames; 0: none. By default the profile's: 90 or none."),
    ] = None,
    most: Annotated[
        int, typer.Option(min=0, help="Measure on the first so many pictures of each category; 0: all.")
    ] = 0,
    organisers: Annotated[
        bool, typer.Option("--organisers-y", help="Luma with red and blue exchanged, as in the organisers' script.")
    ] = False,
    served: Annotated[
        bool, typer.Option("--served", help="What the embedded Triton answers, from model_repository/, not PyTorch.")
    ] = False,
    weights: Annotated[Path, typer.Option(help="Folder of trained weights.")] = WEIGHTS_DIR,
    again: Annotated[
        bool, typer.Option("--again", help="With 'all': measure those too whose numbers are known.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="With 'all': where .json, .svg and .png go, without suffix; by default "
            "docs/benchmarks/quality-PROFILE, for pictures other than data/test quality-FOLDER-PROFILE."
        ),
    ] = None,
    page_file: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help="With 'all': the Markdown page whose part on the profile is written; by default docs/quality.md, "
            "for pictures other than data/test docs/quality-FOLDER.md.",
        ),
    ] = None,
) -> None:
    """PSNR and SSIM of a trained network on whole pictures, beside bicubic and Lanczos.

    With `all`, numbers of weights that have not changed are taken from the last run's JSON.
    """
    if profile not in PROFILES:
        raise BenchmarkError(f"unknown profile {profile!r}; known are: {', '.join(PROFILES)}")
    chosen: Profile = profile
    quality = PROTOCOL_JPEG[chosen] if jpeg is None else jpeg or None
    paths = _first_of_each_category(list_images(images) if images.is_dir() else [], most)
    if not paths:
        raise BenchmarkError(f"no pictures in {images}: name a folder with --images, or run 'python -m training data'")
    usual_files, usual_page = places(images, chosen)
    files, written = output or usual_files, page_file or usual_page
    known = _read(files.with_name(f"{files.name}.json")) if model == "all" and not again else []
    measurements = Measurements(paths, quality, organisers, known)
    measured: list[Quality] = []
    with contextlib.ExitStack() as stack:
        server = EmbeddedTriton(REPOSITORY) if served else None
        jobs = [
            (spec, each, _served(server, spec, each, chosen) if server else _pytorch(spec, each, chosen, weights))
            for spec, each in _jobs(model, scale, chosen, weights)
        ]
        if server:
            stack.enter_context(server)
        progress = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
        bar = progress.add_task("measuring", total=len(jobs) * len(paths))
        for spec, each, upscaler in jobs:
            progress.update(bar, description=variant_name(spec.name, each, chosen))
            sha = digest(weights_path(spec, each, chosen, weights))[:12] if spec.learned and not server else ""
            found = measurements.known(spec.name, each, chosen, sha)
            if found:
                progress.advance(bar, len(paths))
            else:
                found = measurements.measure(spec.name, each, chosen, sha, upscaler, lambda: progress.advance(bar))
            measured.append(found)
            if model == "all":
                progress.console.print(f"{spec.name} x{each}: {found.average('gain'):+.3f} dB")
        if model == "all":
            shown = _for_readers(images)
            options = ("" if _is_test(images) else f" --images {shown}") + (f" --most {most}" if most else "")
            _write(measured, jobs, paths, shown, files, written, options)
    if as_json:
        report = [each.as_json() for each in measured]
        print(json.dumps(report if model == "all" else report[0], indent=2))
    elif model == "all":
        console = Console()
        for line in page.correlations(measured):
            console.print(line)
        console.print(f"written: {written}, {files}.json, {files}.svg, {files}.png")
    else:
        _show(measured[0])


def places(images: Path, profile: Profile) -> tuple[Path, Path]:
    """Where the numbers of all networks on the pictures of a folder go, without suffix, and the page about them."""
    name = "quality" if _is_test(images) else f"quality-{images.resolve().name}"
    return _DOCS / "benchmarks" / f"{name}-{profile}", _DOCS / f"{name}.md"


def _is_test(images: Path) -> bool:
    return images.resolve() == (ROOT / _TEST).resolve()


def _jobs(model: str, scale: int, profile: Profile, weights: Path) -> list[tuple[ModelSpec, int]]:
    if model != "all":
        spec = get(model)
        return [(spec, require_scale(spec, scale))]
    jobs = [
        (spec, each)
        for each in PROTOCOL_SIZES
        for spec in specs().values()
        if each in spec.scales and spec.learned and weights_path(spec, each, profile, weights).exists()
    ]
    if not jobs:
        raise BenchmarkError(f"no weights for profile {profile!r} in {weights}")
    return jobs


def _first_of_each_category(paths: Sequence[Path], most: int) -> list[Path]:
    if not most:
        return list(paths)
    taken: dict[str, list[Path]] = {}
    for path in paths:
        taken.setdefault(category_of(path), []).append(path)
    return [path for group in taken.values() for path in group[:most]]


def _pytorch(spec: ModelSpec, scale: int, profile: Profile, weights: Path) -> Upscaler:
    network = reparameterise(load(spec, scale, profile, weights))
    return lambda lr: upscale(network, lr, spec.input_range)


def _served(server: EmbeddedTriton, spec: ModelSpec, scale: int, profile: Profile) -> Upscaler:
    variant = variant_name(spec.name, scale, profile)
    if not (REPOSITORY / variant).is_dir():
        raise BenchmarkError(
            f"--served: {variant} is not in {REPOSITORY}; run 'python export/ --model {spec.name} --profile {profile}'"
        )
    client = InferenceServerClient(server.url)
    return lambda lr: infer(client, variant, lr)


def _show(quality: Quality) -> None:
    title = f"{variant_name(quality.model, quality.scale, quality.profile)}, {page.frames(quality.jpeg)}"
    table = Table(
        "picture", "shows", "PSNR RGB", "gain", "PSNR Y", "gain", "SSIM", "gain", "Lanczos' gain", title=title
    )
    for each in sorted(quality.scores, key=lambda each: (each.category, each.image)):
        table.add_row(
            each.image,
            each.category,
            f"{each.psnr_rgb:.2f}",
            f"{each.gain:+.2f}",
            f"{each.psnr_y:.2f}",
            f"{each.psnr_y - each.psnr_y_bicubic:+.2f}",
            f"{each.ssim:.4f}",
            f"{each.ssim - each.ssim_bicubic:+.4f}",
            f"{each.psnr_rgb_lanczos - each.psnr_rgb_bicubic:+.2f}",
        )
    console = Console()
    console.print(table)
    for category in ("", *quality.categories):
        gain = quality.average("gain", category)
        console.print(
            f"{category or 'all'}: {quality.average('psnr_rgb', category):.3f} dB, {gain:+.3f} over bicubic; "
            f"SSIM {quality.average('ssim', category):.4f}"
        )


def _read(file: Path) -> list[Quality]:
    """What the last run wrote; nothing, if there was none or it had other columns."""
    if not file.exists():
        return []
    try:
        return [Quality.from_json(report) for report in json.loads(file.read_text())]
    except (KeyError, TypeError, ValueError):
        return []


def _write(
    measured: Sequence[Quality],
    jobs: Sequence[tuple[ModelSpec, int, Upscaler]],
    paths: Sequence[Path],
    images: str,
    files: Path,
    page_file: Path,
    options: str,
) -> None:
    files.parent.mkdir(parents=True, exist_ok=True)
    files.with_name(f"{files.name}.json").write_text(json.dumps([each.as_json() for each in measured], indent=1) + "\n")
    best = max(range(len(measured)), key=lambda number: measured[number].average("gain"))
    shown = details.draw(measured[best], jobs[best][2], paths, files.with_name(f"{files.name}.png"))
    page.write(measured, shown, images, files, page_file, options)


def _for_readers(folder: Path) -> str:
    source = folder.resolve()
    return str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else source.name
