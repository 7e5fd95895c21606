"""PSNR and SSIM of networks on whole pictures, beside bicubic and Lanczos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark.errors import BenchmarkError
from models.blocks.resample import BicubicUpsample
from models.weights import Profile
from training.data import category_of
from training.metrics import psnr, psnr_y, ssim
from training.quality import lr_and_hr, upscale

Pixels = NDArray[np.uint8]
Upscaler = Callable[[Pixels], Pixels]
"""From an LR frame, uint8 RGB (h, w, 3), to (scale*h, scale*w, 3)."""
_AVERAGED = ("psnr_rgb", "psnr_rgb_bicubic", "psnr_y", "psnr_y_bicubic", "ssim", "ssim_bicubic")


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
    weights: str
    """The beginning of the weights' digest; empty: they are not in a file, or what was measured is a service."""
    jpeg: int | None
    """Quality of the JPEG that the LR frames pass through; None: clean."""
    organisers: bool
    """Whether luma is taken as the organisers' script does."""
    scores: tuple[ImageScores, ...]

    def average(self, key: str, category: str = "") -> float:
        """The mean of a column of `ImageScores`, over all pictures or those of a category."""
        return mean(getattr(each, key) for each in self.scores if category in ("", each.category))

    @property
    def median_gain(self) -> float:
        """Over bicubic, in dB over RGB."""
        return median(each.gain for each in self.scores)

    @property
    def categories(self) -> list[str]:
        """What the pictures show, in order of their number."""
        found = [each.category for each in self.scores]
        return sorted(set(found), key=lambda category: (-found.count(category), category))

    def as_json(self) -> dict[str, Any]:
        """The numbers as the command prints them."""
        return {
            "model": self.model,
            "scale": self.scale,
            "profile": self.profile,
            "weights": self.weights,
            "jpeg": self.jpeg,
            "organisers": self.organisers,
            "images": len(self.scores),
            **{key: round(self.average(key), 5) for key in _AVERAGED},
            "by_category": {
                category: {
                    "images": sum(each.category == category for each in self.scores),
                    **{key: round(self.average(key, category), 5) for key in _AVERAGED},
                }
                for category in self.categories
            },
            "per_image": [asdict(each) for each in self.scores],
        }

    @staticmethod
    def from_json(report: Mapping[str, Any]) -> Quality:
        """The opposite of `as_json`.

        Raises:
            KeyError: the report lacks something; TypeError: a picture has other numbers than today's.
        """
        scores = tuple(ImageScores(**each) for each in report["per_image"])
        names = [field.name for field in fields(Quality) if field.name != "scores"]
        return Quality(**{name: report[name] for name in names}, scores=scores)


class Measurements:
    """Measures networks on the same pictures. What they are held against is measured once for all.

    Args:
        paths: the pictures, of different names.
        jpeg: quality of the JPEG that the LR frames pass through; None: clean.
        organisers: luma with red and blue exchanged, as in the organisers' script.
        earlier: what was measured before. Of a network whose weights have not changed since, on pictures of the same
            names, it is taken as it is.
    """

    def __init__(
        self, paths: Sequence[Path], jpeg: int | None, organisers: bool, earlier: Sequence[Quality] = ()
    ) -> None:
        self._paths = paths
        self._jpeg = jpeg
        self._organisers = organisers
        names = [path.stem for path in paths]
        self._earlier = {
            (each.model, each.scale, each.profile, each.weights): each
            for each in earlier
            if each.weights
            and (each.jpeg, each.organisers) == (jpeg, organisers)
            and [score.image for score in each.scores] == names
        }
        columns = [field.name for field in fields(Reference)]
        self._references = {
            (each.scale, score.image): Reference(**{name: getattr(score, name) for name in columns})
            for each in self._earlier.values()
            for score in each.scores
        }

    def known(self, model: str, scale: int, profile: Profile, weights: str) -> Quality | None:
        """What was measured earlier of these weights."""
        return self._earlier.get((model, scale, profile, weights))

    def measure(
        self,
        model: str,
        scale: int,
        profile: Profile,
        weights: str,
        upscaler: Upscaler,
        advance: Callable[[], None] = lambda: None,
    ) -> Quality:
        """Measure a network; `advance` is called after each picture.

        Raises:
            BenchmarkError: a picture cannot be measured, e.g. for its size.
        """
        scores: list[ImageScores] = []
        for path in self._paths:
            try:
                scores.append(self._score(path, scale, upscaler))
            except ValueError as error:
                raise BenchmarkError(f"{path}: {error}") from error
            advance()
        return Quality(model, scale, profile, weights, self._jpeg, self._organisers, tuple(scores))

    def _score(self, path: Path, scale: int, upscaler: Upscaler) -> ImageScores:
        lr, hr = lr_and_hr(path, scale, self._jpeg)
        key = (scale, path.stem)
        if key not in self._references:
            self._references[key] = self._reference(lr, hr, scale)
        sr = upscaler(lr)
        return ImageScores(
            **asdict(self._references[key]),
            image=path.stem,
            category=category_of(path),
            psnr_rgb=psnr(sr, hr),
            psnr_y=psnr_y(sr, hr, organisers=self._organisers),
            ssim=ssim(sr, hr),
        )

    def _reference(self, lr: Pixels, hr: Pixels, scale: int) -> Reference:
        size = (hr.shape[1], hr.shape[0])
        bicubic = upscale(BicubicUpsample(scale), lr)
        small = Image.fromarray(lr)
        return Reference(
            psnr_rgb_bicubic=psnr(bicubic, hr),
            psnr_rgb_bicubic_pillow=psnr(np.asarray(small.resize(size, Image.Resampling.BICUBIC)), hr),
            psnr_rgb_lanczos=psnr(np.asarray(small.resize(size, Image.Resampling.LANCZOS)), hr),
            psnr_y_bicubic=psnr_y(bicubic, hr, organisers=self._organisers),
            ssim_bicubic=ssim(bicubic, hr),
        )
