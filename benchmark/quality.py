"""How good the trained networks are, by the report's protocol (section 2.1): whole pictures, against bicubic."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tritonclient.grpc import InferenceServerClient

from benchmark.charts import scatter
from benchmark.complexity import PROTOCOL_SIZES, complexity
from benchmark.engines import infer
from benchmark.errors import BenchmarkError
from deploy.embedded import EmbeddedTriton
from deploy.local import REPOSITORY, ROOT
from models.blocks.resample import BicubicUpsample
from models.registry import get, require_scale, specs
from models.reparam import reparameterise
from models.spec import ModelSpec
from models.weights import DEFAULT_PROFILE, PROFILES, WEIGHTS_DIR, Profile, load, variant_name, weights_path
from training.data import category_of
from training.degradation import PROTOCOL_JPEG
from training.metrics import psnr, psnr_y, ssim
from training.patches import list_images
from training.quality import lr_and_hr, upscale

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]
"""From an LR frame, uint8 RGB (h, w, 3), to (scale*h, scale*w, 3)."""


@dataclass(frozen=True)
class Reference:
    """What needs no network to reach, on one picture."""

    psnr_rgb_bicubic: float
    psnr_rgb_bicubic_pillow: float
    psnr_rgb_lanczos: float
    psnr_y_bicubic: float
    ssim_bicubic: float


@dataclass(frozen=True)
class ImageScores(Reference):
    """One picture. PSNR in dB; bicubic is torch's, as the organisers'; Lanczos is Pillow's."""

    image: str
    category: str
    psnr_rgb: float
    psnr_y: float
    ssim: float

    @property
    def gain(self) -> float:
        """Over bicubic, in dB over RGB."""
        return self.psnr_rgb - self.psnr_rgb_bicubic


@dataclass(frozen=True)
class Quality:
    """A trained network on a set of pictures."""

    model: str
    scale: int
    profile: Profile
    jpeg: int | None
    """Quality of the JPEG that the LR frames pass through; None: clean."""
    scores: tuple[ImageScores, ...]

    def average(self, key: str, category: str = "") -> float:
        """The mean of a column of `ImageScores`, over all pictures or those of a category."""
        return mean(getattr(each, key) for each in self.scores if category in ("", each.category))

    @property
    def categories(self) -> list[str]:
        """What the pictures show, in order of their number."""
        found = [each.category for each in self.scores]
        return sorted(set(found), key=lambda category: (-found.count(category), category))

    def as_json(self) -> dict[str, Any]:
        """The numbers as the command prints them."""
        keys = ("psnr_rgb", "psnr_rgb_bicubic", "psnr_y", "psnr_y_bicubic", "ssim", "ssim_bicubic")
        return {
            "model": self.model,
            "scale": self.scale,
            "profile": self.profile,
            "jpeg": self.jpeg,
            "images": len(self.scores),
            **{key: round(self.average(key), 5) for key in keys},
            "by_category": {
                category: {
                    "images": sum(each.category == category for each in self.scores),
                    **{key: round(self.average(key, category), 5) for key in keys},
                }
                for category in self.categories
            },
            "per_image": [asdict(each) for each in self.scores],
        }


def command(
    model: Annotated[str, typer.Option(help="One method, or 'all' that have weights.")] = "runet",
    scale: Annotated[int, typer.Option(help="2 or 3; with 'all' both.")] = 2,
    profile: Annotated[str, typer.Option(help="clean or compressed.")] = DEFAULT_PROFILE,
    images: Annotated[Path, typer.Option(help="Folder of HR pictures.")] = Path("data/test"),
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    output: Annotated[
        Path, typer.Option(help="With 'all': where .json, .md and .svg go, a path without suffix.")
    ] = Path("out/quality"),
) -> None:
    """PSNR and SSIM of a trained network on whole pictures, beside bicubic and Lanczos."""
    if profile not in PROFILES:
        raise BenchmarkError(f"unknown profile {profile!r}; known are: {', '.join(PROFILES)}")
    chosen: Profile = profile
    quality = PROTOCOL_JPEG[chosen] if jpeg is None else jpeg or None
    paths = _first_of_each_category(list_images(images) if images.is_dir() else [], most)
    if not paths:
        raise BenchmarkError(f"no pictures in {images}: name a folder with --images, or run 'python -m training data'")
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
            scores: list[ImageScores] = []
            for path in paths:
                scores.append(_score(path, upscaler, each, quality, organisers))
                progress.advance(bar)
            measured.append(Quality(spec.name, each, chosen, quality, tuple(scores)))
            if model == "all":
                progress.console.print(f"{spec.name} x{each}: {measured[-1].average('gain'):+.3f} dB")
    if model == "all":
        _write(measured, images, output)
    if as_json:
        report = [each.as_json() for each in measured]
        print(json.dumps(report if model == "all" else report[0], indent=2))
    elif model == "all":
        Console().print(f"written: {output}.json, {output}.md, {output}.svg")
    else:
        _show(measured[0])


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


def _score(path: Path, upscaler: Upscaler, scale: int, jpeg: int | None, organisers: bool) -> ImageScores:
    lr, hr = lr_and_hr(path, scale, jpeg)
    sr = upscaler(lr)
    return ImageScores(
        **asdict(_reference(path, scale, jpeg, organisers)),
        image=path.stem,
        category=category_of(path),
        psnr_rgb=psnr(sr, hr),
        psnr_y=psnr_y(sr, hr, organisers=organisers),
        ssim=ssim(sr, hr),
    )


@cache
def _reference(path: Path, scale: int, jpeg: int | None, organisers: bool) -> Reference:
    lr, hr = lr_and_hr(path, scale, jpeg)
    size = (hr.shape[1], hr.shape[0])
    bicubic = upscale(BicubicUpsample(scale), lr)
    small = Image.fromarray(lr)
    return Reference(
        psnr_rgb_bicubic=psnr(bicubic, hr),
        psnr_rgb_bicubic_pillow=psnr(np.asarray(small.resize(size, Image.Resampling.BICUBIC)), hr),
        psnr_rgb_lanczos=psnr(np.asarray(small.resize(size, Image.Resampling.LANCZOS)), hr),
        psnr_y_bicubic=psnr_y(bicubic, hr, organisers=organisers),
        ssim_bicubic=ssim(bicubic, hr),
    )


def _show(quality: Quality) -> None:
    title = f"{variant_name(quality.model, quality.scale, quality.profile)}, {_frames(quality.jpeg)}"
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


def _frames(jpeg: int | None) -> str:
    return "clean frames" if jpeg is None else f"frames of JPEG quality {jpeg}"


def _write(measured: Sequence[Quality], images: Path, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps([each.as_json() for each in measured], indent=1) + "\n")
    output.with_suffix(".md").write_text("\n".join(_page(measured, images)) + "\n")
    points = {
        f"x{scale}": [
            (each.model, _gmacs(each.model, scale), each.average("gain")) for each in measured if each.scale == scale
        ]
        for scale in PROTOCOL_SIZES
    }
    scatter(
        {name: group for name, group in points.items() if group},
        output.with_suffix(".svg"),
        title=f"Trained here, {_frames(measured[0].jpeg)}, {len(measured[0].scores)} pictures",
        x="GMAC per frame to 4K",
        y="gain over bicubic, dB PSNR (RGB)",
    )


@cache
def _gmacs(model: str, scale: int) -> float:
    return complexity(reparameterise(get(model).build(scale)), *PROTOCOL_SIZES[scale]).macs / 1e9


def _page(measured: Sequence[Quality], images: Path) -> Iterator[str]:
    first = measured[0]
    source = images.resolve()
    shown = source.relative_to(ROOT) if source.is_relative_to(ROOT) else source.name
    yield f"# Quality, profile `{first.profile}`, {_frames(first.jpeg)}"
    yield ""
    contents = ", ".join(f"{sum(s.category == each for s in first.scores)} {each}" for each in first.categories)
    yield f"Written by `python -m benchmark quality --model all --profile {first.profile}`: {len(first.scores)} whole"
    yield f"pictures of `{shown}` ({contents}), none of which training saw. Gains are means over the pictures,"
    yield "in dB PSNR over RGB against torch's bicubic. The report's gain is on its own benchmark."
    for scale in PROTOCOL_SIZES:
        of_scale = sorted((each for each in measured if each.scale == scale), key=lambda each: -each.average("gain"))
        if not of_scale:
            continue
        categories = of_scale[0].categories
        yield ""
        yield f"## x{scale}"
        yield ""
        columns = [
            "model",
            "GMAC",
            "PSNR RGB",
            "gain",
            *categories,
            "worst",
            "PSNR Y gain",
            "SSIM gain",
            "report's gain",
        ]
        yield f"| {' | '.join(columns)} |"
        yield "|---" * len(columns) + "|"
        bicubic = get("bicubic").reported[scale].psnr_rgb
        for each in of_scale:
            by_category = " | ".join(f"{each.average('gain', category):+.2f}" for category in categories)
            yield (
                f"| {each.model} | {_gmacs(each.model, scale):.1f} | {each.average('psnr_rgb'):.2f} "
                f"| {each.average('gain'):+.2f} | {by_category} | {min(score.gain for score in each.scores):+.2f} "
                f"| {each.average('psnr_y') - each.average('psnr_y_bicubic'):+.2f} "
                f"| {each.average('ssim') - each.average('ssim_bicubic'):+.4f} "
                f"| {get(each.model).reported[scale].psnr_rgb - bicubic:+.2f} |"
            )
        one = of_scale[0]
        lanczos = one.average("psnr_rgb_lanczos") - one.average("psnr_rgb_bicubic")
        yield ""
        yield f"Bicubic: {one.average('psnr_rgb_bicubic'):.2f} dB; Lanczos gains {lanczos:+.2f} dB."
