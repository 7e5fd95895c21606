"""Patches in a small file: what travels to a machine with a GPU.

As raw pixels a patch is 389 KB. One of a photograph is 49 KB as a JPEG, without chroma subsampling, at the lowest
quality that keeps it within 50 dB. Others, drawn and rendered, are 17 KB as AVIF pictures, at 47 dB.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from training.metrics import psnr

_LEAST_DB = 50.0
_AVIF_QUALITY = 90
_JPEG_QUALITIES = (70, 80, 85, 90, 92, 94, 95, 96, 97, 98, 99, 100)
_BATCH = 256
_CHUNK = 64
_SUFFIX = ".patches"


@dataclass(frozen=True)
class Patches:
    """HR patches to train on."""

    pixels: NDArray[np.uint8]
    """RGB, (N, side, side, 3)."""
    photograph: NDArray[np.bool_]
    """Which of them are of photographs, (N,)."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        """Of every patch, in pixels."""
        return self.pixels.shape[1]


def is_pack(path: Path) -> bool:
    """Whether `path` is a file of packed patches."""
    return path.suffix == _SUFFIX and path.is_file()


def pack(patches: Patches, path: Path, megabytes: float, *, seed: int = 0) -> int:
    """Write as many patches, drawn at random, as fit; returns their number. Photographs come first, as they are rare.

    Raises:
        ValueError: the path has another suffix than .patches.
    """
    if path.suffix != _SUFFIX:
        raise ValueError(f"{path}: a file of packed patches ends in {_SUFFIX}")
    order = np.random.default_rng(seed).permutation(len(patches))
    order = order[np.argsort(~patches.photograph[order], kind="stable")]
    pictures: list[bytes] = []
    size = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(range(0, len(order), _BATCH), "packing"):
            some = order[start : start + _BATCH]
            for picture in pool.map(_encode, patches.pixels[some], patches.photograph[some]):
                if size + len(picture) > megabytes * 2**20:
                    break
                pictures.append(picture)
                size += len(picture)
            else:
                continue
            break
    ends = np.cumsum([len(picture) for picture in pictures])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(
            file,
            ends=ends,
            pictures=np.frombuffer(b"".join(pictures), np.uint8),
            photograph=patches.photograph[order[: len(pictures)]],
        )
    return len(pictures)


def read_pack(path: Path) -> Patches:
    """The patches of a file, memory-mapped: on the first call they are decoded and kept beside it."""
    with np.load(path) as stored:
        ends, stream, photograph = stored["ends"], stored["pictures"], stored["photograph"]
    store = path.with_suffix(f"{_SUFFIX}.npy")
    if not store.exists() or store.stat().st_mtime < path.stat().st_mtime:
        pictures = np.split(stream, ends[:-1])
        # Processes: Pillow's AVIF decoder keeps Python's lock.
        with ProcessPoolExecutor(os.cpu_count()) as pool, TemporaryDirectory(dir=path.parent) as scratch:
            partial = Path(scratch) / store.name
            np.save(partial, np.stack(list(pool.map(_decode, pictures, chunksize=_CHUNK))))
            partial.replace(store)
    return Patches(np.load(store, mmap_mode="r"), photograph)


def _encode(patch: NDArray[np.uint8], photograph: bool) -> bytes:
    return _as_jpeg(patch) if photograph else _as_avif(patch)


def _as_jpeg(patch: NDArray[np.uint8]) -> bytes:
    """The first that is good enough, or the best."""
    picture = b""
    for quality in _JPEG_QUALITIES:
        with io.BytesIO() as file:
            Image.fromarray(patch).save(file, "JPEG", quality=quality, subsampling="4:4:4")
            picture = file.getvalue()
        if psnr(_decode(np.frombuffer(picture, np.uint8)), patch) >= _LEAST_DB:
            break
    return picture


def _as_avif(patch: NDArray[np.uint8]) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(patch).save(file, "AVIF", quality=_AVIF_QUALITY, subsampling="4:4:4", max_threads=1)
        return file.getvalue()


def _decode(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(picture.tobytes())) as image:
        return np.asarray(image.convert("RGB"))
