"""Pictures to train and measure on, from Debian packages, split by package so that no picture is on both sides.

Packages are downloaded and unpacked, not installed: no root is needed. docs/data.md lists licences.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, UnidentifiedImageError
from rich.progress import track

from training.patches import list_images

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Package:
    """A Debian package with pictures in it."""

    name: str
    split: Split
    content: str
    least_width: int = 256
    """Narrower pictures are left out: sprites and icons in training, anything below 4K in the test set."""


PACKAGES = (
    Package("plasma-workspace-wallpapers", "train", "photographs and drawn wallpapers", 1000),
    Package("mate-backgrounds", "train", "photographs and abstract wallpapers", 1000),
    Package("supertuxkart-data", "train", "game textures, skies and screenshots"),
    Package("endless-sky-data", "train", "landscape photographs and rendered ships"),
    Package("redeclipse-data", "train", "game textures and map screenshots"),
    Package("wesnoth-1.16-data", "train", "painted portraits, story pictures and maps", 400),
    Package("torcs-data", "train", "car and track textures, screenshots"),
    Package("opencv-doc", "train", "photographs of the OpenCV samples"),
    Package("openclipart-png", "train", "drawn clip art with hard edges", 400),
    Package("lxqt-themes", "validation", "photographs of 3000x1993", 2500),
    Package("enlightenment-data", "test", "photographs of 3840x2160", 3800),
    Package("gnome-backgrounds", "test", "drawn wallpapers", 3800),
    Package("ukui-wallpapers", "test", "drawn wallpapers", 3800),
    Package("lomiri-wallpapers-20.04", "test", "a photograph and drawn wallpapers", 3800),
)

# Maps of surface properties are stored as pictures but do not look like any frame.
_NOT_PICTURES = re.compile(
    r"normal|bump|spec(ular)?[^a-z]|height|_nm\.|_n\.|_s\.|_h\.|mask|alpha|light-?map|gloss|inheritance", re.I
)


class DataError(RuntimeError):
    """A package could not be fetched; the message says which and why."""


def fetch(folder: Path, packages: tuple[Package, ...] = PACKAGES) -> dict[Split, int]:
    """Put the packages' pictures into `folder`/train, /validation and /test; packages already there are kept.

    Returns:
        The number of pictures in each split.

    Raises:
        DataError: this is no Debian machine, or a package cannot be downloaded.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError(
            "apt-get and dpkg-deb are needed to fetch Debian packages; or name your own folder with --images"
        )
    for package in track(packages, "fetching pictures"):
        target = folder / package.split / package.name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unpacked = _unpack(package, Path(scratch))
            partial = Path(scratch) / "pictures"
            partial.mkdir()
            for name, write in _pictures(unpacked, package.least_width):
                write(partial / name)
            partial.rename(target)
    return {split: len(list_images(folder / split)) for split in ("train", "validation", "test")}


def _unpack(package: Package, scratch: Path) -> Path:
    for command in (["apt-get", "download", package.name], ["sh", "-c", "dpkg-deb -x ./*.deb unpacked"]):
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            raise DataError(f"cannot fetch {package.name}: {''.join(reason)} (is 'apt-get update' due?)")
    return scratch / "unpacked"


def _pictures(folder: Path, least_width: int) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Each wanted picture below `folder` as a file name and a function that writes it there."""
    for path in list_images(folder):
        if _NOT_PICTURES.search(path.name) or path.is_symlink() or _width(path) < least_width:
            continue
        yield "-".join(path.relative_to(folder).parts[-3:]), lambda to, path=path: shutil.copyfile(path, to)
    # Enlightenment's .edj files hold every picture at a dozen sizes, as plain JPEG streams.
    for path in sorted(folder.rglob("*.edj")):
        for data in _embedded_jpegs(path.read_bytes()):
            if least_width <= _width(io.BytesIO(data)) <= 3840:
                yield f"{path.stem}.jpg", lambda to, data=data: to.write_bytes(data)
                break


def _embedded_jpegs(data: bytes) -> Iterator[bytes]:
    for match in re.finditer(b"\xff\xd8\xff", data):
        yield data[match.start() :]


def _width(file: Path | io.BytesIO) -> int:
    try:
        with Image.open(file) as image:
            return image.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0
