"""Pictures to train and measure on, from Debian packages, split by package so that no picture is on both sides.

Packages are downloaded and unpacked, not installed: no root is needed. docs/data.md lists licences.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from PIL import Image, UnidentifiedImageError
from rich.progress import track

from training.packages import PoolFile, unpack
from training.pictures import list_images

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Category = Literal["photographs", "art", "rendered", "text", "pictures"]
"""What a picture shows, as quality is reported; `pictures` are those of a folder nobody has described."""


@dataclass(frozen=True)
class Package:
    """A Debian package with pictures in it."""

    name: str
    """And of the folder its pictures go to."""
    split: Split
    content: str
    category: Category
    """Of most of its pictures."""
    least_width: int = 256
    """Narrower pictures are left out: sprites and icons in training, anything below 4K in the test set."""
    version: PoolFile | None = None
    """For pictures that this machine's Debian does not have; None takes its own version of the package."""
    without: str = "(?!)"
    """A pattern of names that are left out, too: what is in the test set, or looks like it."""


PACKAGES = (
    Package("plasma-workspace-wallpapers", "train", "photographs and drawn wallpapers", "photographs", 1000),
    Package("endless-sky-high-dpi", "train", "photographs of landscapes and cities, 1440x720", "photographs", 1000),
    Package("mate-screensaver-common", "train", "photographs taken in space", "photographs", 1000),
    Package("libjs-jquery-backstretch", "train", "photographs", "photographs", 1000),
    Package("mate-backgrounds", "train", "photographs and abstract wallpapers", "photographs", 1000),
    Package("supertuxkart-data", "train", "game textures, skies and screenshots", "art"),
    Package("endless-sky-data", "train", "landscape photographs and rendered ships", "photographs"),
    Package("redeclipse-data", "train", "game textures and map screenshots", "art"),
    Package("wesnoth-1.16-data", "train", "painted portraits, story pictures and maps", "art", 400),
    Package("torcs-data", "train", "car and track textures, screenshots", "art"),
    Package("opencv-doc", "train", "photographs and drawings of the OpenCV samples", "pictures"),
    Package("openclipart-png", "train", "drawn clip art with hard edges", "art", 400),
    Package("lomiri-wallpapers-16.04", "validation", "photographs", "photographs", 1300),
    Package("lxqt-themes", "validation", "photographs of 3000x1993", "photographs", 2500),
    Package(
        "ukui-wallpapers_20.04.4",
        "validation",
        "photographs of 3840x2160",
        "photographs",
        3800,
        PoolFile(
            "u/ukui-wallpapers/ukui-wallpapers_20.04.4-1_all.deb",
            "3e9036f3e9fa197e3ff8fc6551eeba208f31ac99cba06da052e49a00d77ed62d",
        ),
        "2004default|focal-ubuntukylin|rhythm|the-mouse",
    ),
    Package("enlightenment-data", "test", "photographs of 3840x2160", "photographs", 3800),
    Package("gnome-backgrounds", "test", "drawn wallpapers", "art", 3800),
    Package("ukui-wallpapers", "test", "drawn wallpapers", "art", 3800),
    Package("lomiri-wallpapers-20.04", "test", "a photograph and drawn wallpapers", "art", 3800),
)

# Maps of surface properties are stored as pictures but do not look like any frame.
_NOT_PICTURES = re.compile(
    r"normal|bump|spec(ular)?[^a-z]|height|_nm\.|_n\.|_s\.|_h\.|mask|alpha|light-?map|gloss|inheritance", re.I
)


def category_of(path: Path) -> Category:
    """What a picture of ours shows, by the package whose folder it lies in."""
    categories: dict[str, Category] = {package.name: package.category for package in PACKAGES}
    categories["povray-examples"] = "rendered"
    for folder in path.parts:
        if folder in categories:
            return categories[folder]
    return "pictures"


def fetch(folder: Path, packages: tuple[Package, ...] = PACKAGES) -> None:
    """Put the packages' pictures into `folder`/train, /validation and /test; packages already there are kept.

    Raises:
        DataError: this is no Debian machine, or a package cannot be downloaded.
    """
    for package in track(packages, "fetching pictures"):
        target = folder / package.split / package.name
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            unpacked = unpack([package.version or package.name], Path(scratch) / "unpacked")
            partial = Path(scratch) / "pictures"
            partial.mkdir()
            for name, write in pictures_of(unpacked, package.least_width, package.without):
                write(partial / name)
            partial.rename(target)


def pictures_of(
    folder: Path, least_width: int, without: str = "(?!)"
) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Each wanted picture below `folder` as a file name and a function that writes it there."""
    unwanted = re.compile(f"{_NOT_PICTURES.pattern}|{without}", re.I)
    wanted = [
        path
        for path in list_images(folder)
        if not (unwanted.search(path.name) or path.is_symlink() or _width(path) < least_width)
    ]
    for name, path in _named(wanted, folder):
        yield name, lambda to, path=path: shutil.copyfile(path, to)
    # Enlightenment's .edj files hold every picture at a dozen sizes, as plain JPEG streams.
    for path in sorted(folder.rglob("*.edj")):
        for data in _embedded_jpegs(path.read_bytes()):
            if least_width <= _width(io.BytesIO(data)) <= 3840:
                yield f"{path.stem}.jpg", lambda to, data=data: to.write_bytes(data)
                break


def _named(paths: list[Path], folder: Path) -> list[tuple[str, Path]]:
    """Each path with a name of its own: its last three parts, or as many more as it takes for all names to differ."""
    parts = [path.relative_to(folder).parts for path in paths]
    deepest = max(map(len, parts), default=0)
    for depth in range(3, deepest + 1):
        names = ["-".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            break
    else:
        names = ["-".join(part) for part in parts]
    return list(zip(names, paths, strict=True))


def _embedded_jpegs(data: bytes) -> Iterator[bytes]:
    for match in re.finditer(b"\xff\xd8\xff", data):
        yield data[match.start() :]


def _width(file: Path | io.BytesIO) -> int:
    try:
        with Image.open(file) as image:
            return image.width
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 0
