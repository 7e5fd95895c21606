"""HR patches: cut once from a folder of pictures, kept in one file, drawn and degraded batch by batch.

Smooth patches teach little and noise teaches the wrong thing, so a patch is kept with a probability that grows with
what bicubic loses on it, and not at all outside a band. But skies and walls are most of most pictures, and a network
that has hardly seen one draws it worse than bicubic: a share of the smooth patches is kept, and some are made, in every
colour there is. Photographs are drawn more often than their part of the patches: packages have few, users have many.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data import category_of
from training.degradation import degrade
from training.pack import Patches, is_pack, read_pack
from training.pictures import list_images, open_true_rgb
from training.settings import Settings

_LOSS_BAND = (0.002, 900.0)  # mean squared error of bicubic x2, in squared grey levels
_LOSS_FULL_WEIGHT = 60.0
_SMOOTH_SHARE = 0.15
_MADE_SHARE = 0.1
_LEAST_CONTRAST = 1 / 8
_MOST_ENLARGED = 3.0
_BLOCKS = (3, 24)  # side of a drawn pixel, in HR pixels
_ENLARGING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
_VERSION = 4  # of the rules by which patches are cut: another one, and they are cut again


class NoPatchesError(RuntimeError):
    """A folder of pictures holds nothing to train on."""


def _cut(path: Path, side: int, most: int, seed: int) -> list[NDArray[np.uint8]]:
    """The patches worth training on from one picture: at most `most`, none overlapping."""
    try:
        picture = open_true_rgb(path)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return []
    height, width = picture.shape[:2]
    rng = np.random.default_rng([seed, int(hashlib.sha256(path.name.encode()).hexdigest()[:8], 16)])
    kept: list[NDArray[np.uint8]] = []
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            patch = picture[top : top + side, left : left + side]
            enlarged = Image.fromarray(degrade(patch, 2)).resize((side, side), Image.Resampling.BICUBIC)
            loss = float(np.square(np.asarray(enlarged, np.float32) - patch).mean())
            keep = max(_SMOOTH_SHARE, (min(loss, _LOSS_FULL_WEIGHT) / _LOSS_FULL_WEIGHT) ** 0.5)
            if _LOSS_BAND[0] < loss < _LOSS_BAND[1] and rng.random() < keep:
                kept.append(patch.copy())
    rng.shuffle(kept)
    return kept[:most]


def load_patches(folder: Path, side: int, *, most_per_image: int = 400, seed: int = 0) -> Patches:
    """Patches of this side from the pictures below `folder`, memory-mapped, or from a file of packed ones.

    They are cut on the first call and kept in `folder/.patches`, under a name that changes with the pictures.

    Raises:
        NoPatchesError: the folder does not exist, or no picture in it has enough detail.
    """
    if is_pack(folder):
        return read_pack(folder)
    images = list_images(folder) if folder.is_dir() else []
    if not images:
        raise NoPatchesError(f"no pictures in {folder}: name a folder with --images, or run 'python -m training data'")
    listing = [(str(path.relative_to(folder)), path.stat().st_size) for path in images]
    key = hashlib.sha256(json.dumps([_VERSION, listing, side, most_per_image, seed]).encode()).hexdigest()[:12]
    store = folder / ".patches" / f"{side}-{key}.npy"
    if not store.exists():
        store.parent.mkdir(exist_ok=True)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(_cut, path, side, most_per_image, seed) for path in images]
            of_each = [job.result() for job in track(jobs, f"cutting {side}-pixel patches")]
        count = sum(map(len, of_each))
        if not count:
            raise NoPatchesError(
                f"the {len(images)} pictures in {folder} are smaller than {side}x{side} or too flat to train on"
            )
        stored = np.empty(count, [("photograph", np.bool_), ("pixels", np.uint8, (side, side, 3))])
        photograph = [category_of(path) == "photographs" for path in images]
        stored["photograph"] = np.repeat(photograph, [len(cut) for cut in of_each])
        np.stack([patch for cut in of_each for patch in cut], out=stored["pixels"])
        partial = store.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, stored)
        partial.replace(store)
    stored = np.load(store, mmap_mode="r")
    return Patches(stored["pixels"], np.array(stored["photograph"]))


def _colour_field(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A patch of nothing but slowly changing colour; the range it spans is as often small as large."""
    middle, spread = rng.uniform(0, 255, 3), 255 * rng.random() ** 3
    corners = np.clip(middle + spread * rng.uniform(-1, 1, (3, 3, 3)), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(corners).resize((side, side), Image.Resampling.BICUBIC))


def _enlarge(patch: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Some part of the patch, enlarged to its size, as lenses, sensors and small textures leave most of a 4K frame."""
    side = len(patch)
    part = round(side / rng.uniform(1, _MOST_ENLARGED))
    top, left = rng.integers(0, side - part + 1, 2)
    small = Image.fromarray(np.ascontiguousarray(patch[top : top + part, left : left + part]))
    return np.asarray(small.resize((side, side), _ENLARGING[rng.integers(len(_ENLARGING))]))


def _pixelate(patch: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The patch as drawn pixels: blocks of one colour, of some size, beginning anywhere."""
    side = len(patch)
    block = int(rng.integers(_BLOCKS[0], _BLOCKS[1] + 1))
    few = -(-side // block) + 1
    small = patch[:: side // few, :: side // few][:few, :few]
    top, left = rng.integers(0, block, 2)
    return small.repeat(block, 0).repeat(block, 1)[top : top + side, left : left + side]


def _soften(patch: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The patch with less contrast, as wide a range of it small as large."""
    mean = patch.mean((0, 1), dtype=np.float32)
    contrast = np.float32(_LEAST_CONTRAST ** rng.random())
    return np.rint(mean + contrast * (patch - mean)).astype(np.uint8)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """The batch of every training step: item t depends on the settings' seed and on t alone, so a run can be resumed.

    An item is (LR, HR): float RGB in [0, 1], (N, 3, h, w) and (N, 3, scale*h, scale*w), flipped and rotated at random.
    """

    def __init__(self, patches: Patches, scale: int, settings: Settings) -> None:
        self._pixels = patches.pixels
        self._photographs = np.flatnonzero(patches.photograph)
        self._others = np.flatnonzero(~patches.photograph)
        self._scale = scale
        self._settings = settings

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        lr, hr = (torch.from_numpy(side).permute(0, 3, 1, 2).float().div_(255) for side in self.frames(step))
        return lr, hr

    @property
    def batch_size(self) -> int:
        """Pairs in a batch."""
        return self._settings.batch_size

    def frames(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The same batch as bytes: uint8 RGB, (N, h, w, 3) and (N, scale*h, scale*w, 3)."""
        rng = np.random.default_rng([self._settings.seed, step])
        pairs = [self._pair(self._drawn(rng), rng) for _ in range(self.batch_size)]
        lr, hr = (np.stack(side) for side in zip(*pairs, strict=True))
        return lr, hr

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Some patch, a photograph's as often as the settings say, if there are both kinds."""
        wanted, other = self._photographs, self._others
        if rng.random() >= self._settings.photograph_share:
            wanted, other = other, wanted
        return self._pixels[rng.choice(wanted if len(wanted) else other)]

    def _pair(self, patch: NDArray[np.uint8], rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        side = len(patch)
        chosen = _colour_field(side, rng) if rng.random() < _MADE_SHARE else patch
        if rng.random() < self._settings.enlarged_share:
            chosen = _enlarge(chosen, rng)
        if rng.random() < self._settings.pixelated_share:
            chosen = _pixelate(chosen, rng)
        if rng.random() < self._settings.soft_share:
            chosen = _soften(chosen, rng)
        hr = np.rot90(chosen, rng.integers(4))
        hr = np.ascontiguousarray(hr[:, ::-1] if rng.random() < 0.5 else hr)
        return self._settings.degradation.apply(hr, self._scale, rng), hr


def batch_stream(batches: Batches, first_step: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches from `first_step` to the last, made ahead by `workers` processes."""
    steps = range(first_step, len(batches))
    return iter(DataLoader(batches, batch_size=None, sampler=steps, num_workers=workers))
