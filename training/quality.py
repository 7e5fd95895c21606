"""PSNR of a network on whole pictures, beside bicubic and Lanczos in the same run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from models.blocks.resample import BicubicUpsample
from training.data import category_of
from training.degradation import crop_to_multiple, degrade
from training.metrics import psnr
from training.pictures import open_rgb, open_true_rgb


def upscale(network: nn.Module, lr: NDArray[np.uint8], input_range: float = 1.0) -> NDArray[np.uint8]:
    """What the network makes of a whole frame: uint8 RGB (h, w, 3) to (scale*h, scale*w, 3), clamped and rounded."""
    device = next((tensor.device for tensor in network.state_dict().values()), torch.device("cpu"))
    with torch.inference_mode():
        x = torch.from_numpy(lr.copy()).to(device).permute(2, 0, 1)[None].float().div(255)
        y = network(x * input_range).div(input_range).clamp(0, 1).mul(255).round().to(torch.uint8)
    return y[0].permute(1, 2, 0).cpu().numpy()


def lr_and_hr(
    path: Path, scale: int, jpeg_quality: int | None = None, most_pixels: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture and its LR frame.

    With `most_pixels`, to watch a run: of a central crop of about so many HR pixels, with true colours as in training.
    """
    hr = open_true_rgb(path) if most_pixels else open_rgb(path)
    if most_pixels and hr.shape[0] * hr.shape[1] > most_pixels:
        side = int(most_pixels**0.5)
        top, left = max(0, (hr.shape[0] - side) // 2), max(0, (hr.shape[1] - side) // 2)
        hr = hr[top : top + side, left : left + side]
    hr = crop_to_multiple(hr, scale)
    return degrade(hr, scale, jpeg_quality), hr


@dataclass(frozen=True)
class Interpolated:
    """PSNR over RGB of one picture that no network enlarged, in dB."""

    bicubic: float
    """torch's bicubic (a = -0.75), the report's reference."""
    bicubic_pillow: float
    """Pillow's bicubic (a = -0.5), which is 0.2 to 0.4 dB weaker."""
    lanczos: float


@dataclass(frozen=True)
class ImageQuality(Interpolated):
    """PSNR over RGB of one picture, in dB."""

    image: str
    category: str
    network: float

    @property
    def gain(self) -> float:
        """Over the report's bicubic."""
        return self.network - self.bicubic


def evaluate(
    network: nn.Module,
    images: Iterable[Path],
    scale: int,
    *,
    input_range: float = 1.0,
    jpeg_quality: int | None = None,
    most_pixels: int = 0,
) -> list[ImageQuality]:
    """PSNR of the network on each picture; with `most_pixels`, on a central crop of about that many HR pixels."""
    results: list[ImageQuality] = []
    for path in images:
        lr, hr = lr_and_hr(path, scale, jpeg_quality, most_pixels)
        results.append(
            ImageQuality(
                **asdict(_interpolated(path, scale, jpeg_quality, most_pixels)),
                image=path.stem,
                category=category_of(path),
                network=psnr(upscale(network, lr, input_range), hr),
            )
        )
    return results


def lost_in_half(network: nn.Module, measure: Callable[[nn.Module], list[ImageQuality]]) -> float:
    """Mean PSNR over RGB that the pictures lose, in dB, if the network's weights are rounded to float16.

    Not a number if a weight is too large for it. `measure` is `evaluate` with its other arguments.
    """
    rounded = copy.deepcopy(network)
    for tensor in rounded.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    pairs = zip(measure(network), measure(rounded), strict=True)
    return mean(before.network - after.network for before, after in pairs)


@cache
def _interpolated(path: Path, scale: int, jpeg_quality: int | None, most_pixels: int) -> Interpolated:
    """Kept, for it takes longer than most networks, and the next one is measured on the same pictures."""
    lr, hr = lr_and_hr(path, scale, jpeg_quality, most_pixels)
    size = (hr.shape[1], hr.shape[0])
    small = Image.fromarray(lr)
    return Interpolated(
        bicubic=psnr(upscale(BicubicUpsample(scale), lr), hr),
        bicubic_pillow=psnr(np.asarray(small.resize(size, Image.Resampling.BICUBIC)), hr),
        lanczos=psnr(np.asarray(small.resize(size, Image.Resampling.LANCZOS)), hr),
    )


def summary(results: list[ImageQuality]) -> str:
    """One line: mean and median gain over bicubic, and what Lanczos gains."""
    gains = [result.gain for result in results]
    lanczos = mean(result.lanczos - result.bicubic for result in results)
    return (
        f"{mean(result.network for result in results):.2f} dB, over bicubic mean {mean(gains):+.2f} "
        f"median {median(gains):+.2f} worst {min(gains):+.2f} (Lanczos {lanczos:+.2f})"
    )
