"""What was measured, as docs/quality.md tells it, and its chart."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from scipy.stats import spearmanr

from benchmark.charts import scatter
from benchmark.complexity import PROTOCOL_SIZES, complexity
from benchmark.quality.details import Shown
from benchmark.quality.measure import Quality
from benchmark.serving.report import write_page
from models.registry import get
from models.reparam import reparameterise


def write(
    measured: Sequence[Quality], shown: Sequence[Shown], images: str, files: Path, page: Path, options: str = ""
) -> None:
    """Put the profile's part between its markers in `page`, which is made if it is not there; the rest stays.

    Args:
        measured: networks of one profile on the same pictures.
        shown: what is on the sheet of details.
        images: the pictures' folder, for the reader.
        files: the path of the chart (.svg) and of the sheet (.png), without suffix.
        page: the Markdown page.
        options: of the command, beside the profile, that decide what was measured.
    """
    _draw(measured, files.with_name(f"{files.name}.svg"))
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("# Quality\n")
    name = f"python -m benchmark quality --model all --profile {measured[0].profile}"
    seen_from_page = Path(os.path.relpath(files, page.parent))
    text = "\n".join(_part(measured, shown, images, name + options, seen_from_page))
    write_page(page, text, (f"<!-- begin: {name} -->", f"<!-- end: {name} -->"))


def report_gain(model: str, scale: int) -> float:
    """The network's gain over bicubic in the report, in dB PSNR over RGB."""
    return get(model).reported[scale].psnr_rgb - get("bicubic").reported[scale].psnr_rgb


def rank_correlation(measured: Sequence[Quality]) -> float | None:
    """Spearman's coefficient of our gains and the report's; None: there are fewer than three to rank, or all alike."""
    if len(measured) < 3:
        return None
    rho = spearmanr(
        [each.average("gain") for each in measured], [report_gain(each.model, each.scale) for each in measured]
    ).statistic
    return None if rho != rho else float(rho)


def correlations(measured: Sequence[Quality]) -> Iterator[str]:
    """A line for each scale at which there is something to rank."""
    for scale in PROTOCOL_SIZES:
        group = [each for each in measured if each.scale == scale]
        rho = rank_correlation(group)
        if rho is not None:
            yield (
                f"x{scale}: Spearman's rank correlation of our gains and the report's is {rho:+.2f}, "
                f"over {len(group)} networks."
            )


def frames(jpeg: int | None) -> str:
    """What the LR frames are."""
    return "clean frames" if jpeg is None else f"frames of JPEG quality {jpeg}"


def _draw(measured: Sequence[Quality], path: Path) -> None:
    points = {
        f"x{scale}": [
            (each.model, _gmacs(each.model, scale), each.average("gain")) for each in measured if each.scale == scale
        ]
        for scale in PROTOCOL_SIZES
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scatter(
        {name: group for name, group in points.items() if group},
        path,
        title=f"Trained here, {frames(measured[0].jpeg)}, {len(measured[0].scores)} pictures",
        x="GMAC per frame to 4K",
        y="gain over bicubic, dB PSNR (RGB)",
    )


@cache
def _gmacs(model: str, scale: int) -> float:
    return complexity(reparameterise(get(model).build(scale)), *PROTOCOL_SIZES[scale]).macs / 1e9


def _part(measured: Sequence[Quality], shown: Sequence[Shown], images: str, name: str, files: Path) -> Iterator[str]:
    first = measured[0]
    contents = ", ".join(f"{sum(s.category == each for s in first.scores)} {each}" for each in first.categories)
    yield f"## Profile `{first.profile}`, {frames(first.jpeg)}"
    yield ""
    yield f"Written by `{name}`: {len(first.scores)} whole"
    yield f"pictures of `{images}` ({contents}), none of which training saw. Gains are means over the pictures,"
    yield "in dB PSNR over RGB against torch's bicubic. The report's gain is on its own benchmark."
    for scale in PROTOCOL_SIZES:
        group = sorted((each for each in measured if each.scale == scale), key=lambda each: -each.average("gain"))
        if group:
            yield from _table(group, scale)
    yield ""
    yield from correlations(measured)
    yield ""
    yield f"![Gain over bicubic and multiply-accumulates]({files.as_posix()}.svg)"
    yield ""
    yield f"![Details: bicubic, ours, the original]({files.as_posix()}.png)"
    yield ""
    yield "Of each kind this is the picture with the median gain, at the place where bicubic is furthest from the"
    yield "original; PSNR over RGB of the whole picture:"
    yield ""
    for each in shown:
        yield f"- {each.what}: {each.bicubic:.2f} dB, here {each.network:.2f} dB; {each.source}"


def _table(group: Sequence[Quality], scale: int) -> Iterator[str]:
    categories = group[0].categories
    yield ""
    yield f"### x{scale}"
    yield ""
    columns = ["model", "GMAC", "PSNR RGB", "gain", *categories, "median", "worst", "PSNR Y gain", "SSIM gain"]
    columns.append("report's gain")
    yield f"| {' | '.join(columns)} |"
    yield "|---" * len(columns) + "|"
    for each in group:
        by_category = " | ".join(f"{each.average('gain', category):+.2f}" for category in categories)
        yield (
            f"| {each.model} | {_gmacs(each.model, scale):.1f} | {each.average('psnr_rgb'):.2f} "
            f"| {each.average('gain'):+.2f} | {by_category} | {each.median_gain:+.2f} "
            f"| {min(score.gain for score in each.scores):+.2f} "
            f"| {each.average('psnr_y') - each.average('psnr_y_bicubic'):+.2f} "
            f"| {each.average('ssim') - each.average('ssim_bicubic'):+.4f} "
            f"| {report_gain(each.model, scale):+.2f} |"
        )
    one = group[0]
    lanczos = one.average("psnr_rgb_lanczos") - one.average("psnr_rgb_bicubic")
    yield ""
    yield f"Bicubic: {one.average('psnr_rgb_bicubic'):.2f} dB; Lanczos gains {lanczos:+.2f} dB."
