"""Details to look at: a photograph, art, a rendered scene and text, by bicubic, by a network, and as they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median_high
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmark.quality.measure import Pixels, Quality, Upscaler
from models.blocks.resample import BicubicUpsample
from training.comparison import side_by_side
from training.degradation import degrade
from training.metrics import psnr
from training.quality import lr_and_hr, upscale

SIZE = (160, 96)
"""Of a detail, in pixels of the 4K picture."""
_TERMS: Mapping[str, str] = {
    "enlightenment-data": "BSD-2-Clause, by Carsten Haitzler and contributors",
    "lomiri-wallpapers-20.04": "CC-BY-SA-3.0, by whom the file's name says",
    "ukui-wallpapers": "CC-BY-SA-3.0, by the Ubuntu Kylin community",
    "ukui-wallpapers_20.04.4": "CC-BY-SA-3.0, by the Ubuntu Kylin community",
    "povray-examples": "scene CC-BY-3.0, by Persistence of Vision Raytracer Pty. Ltd.; rendered here",
}
"""The Debian packages whose terms are the same for all that a detail may be shown of."""
_TEXT = Path(__file__).resolve().parents[2] / "LICENSE"
_TEXT_TERMS = "the project's licence, set in Pillow's own font (Aileron, CC0-1.0)"


class Shown(NamedTuple):
    """A picture on the sheet."""

    what: str
    source: str
    """The package and the file, and the terms."""
    network: float
    """PSNR over RGB of the whole picture, in dB; so are the next two."""
    bicubic: float


def draw(quality: Quality, upscaler: Upscaler, paths: Sequence[Path], sheet: Path) -> list[Shown]:
    """Write a sheet of details to `sheet`, and say what is on it.

    Of each kind it is the picture with the median gain, at the place where bicubic is furthest from the original.
    """
    rows: list[Mapping[str, Pixels]] = []
    shown: list[Shown] = []
    for what, source, lr, hr in _pictures(quality, paths):
        bicubic, sr = upscale(BicubicUpsample(quality.scale), lr), upscaler(lr)
        rows.append({f"{what}: bicubic": bicubic, f"{quality.model} x{quality.scale}": sr, "original": hr})
        shown.append(Shown(what, source, psnr(sr, hr), psnr(bicubic, hr)))
    sheet.parent.mkdir(parents=True, exist_ok=True)
    side_by_side(rows, *SIZE).save(sheet, optimize=True)
    return shown


def _pictures(quality: Quality, paths: Sequence[Path]) -> Iterator[tuple[str, str, Pixels, Pixels]]:
    """What the picture shows, where it is from, its LR frame and itself."""
    where = {path.stem: path for path in paths}
    for category in quality.categories:
        gains = {
            score.image: score.gain
            for score in quality.scores
            if score.category == category and where[score.image].parent.name in _TERMS
        }
        if gains:
            middle = median_high(gains.values())
            path = where[next(image for image, gain in gains.items() if gain == middle)]
            package = path.parent.name
            source = f"`{path.name}` of Debian's `{package}` ({_TERMS[package]})"
            yield category, source, *lr_and_hr(path, quality.scale, quality.jpeg)
    text = _text(quality.scale)
    yield "text", _TEXT_TERMS, degrade(text, quality.scale, quality.jpeg), text


def _text(scale: int) -> Pixels:
    """A page as a screen would show it, dark on light."""
    page = Image.new("RGB", (640 * scale, 400 * scale), "#fafafa")
    lines = [line.strip() for line in _TEXT.read_text().splitlines() if line.strip()]
    font = ImageFont.load_default(22)
    for number, line in enumerate(lines):
        ImageDraw.Draw(page).text((20, 12 + 30 * number), line, fill="#202428", font=font)
    return np.asarray(page)
