"""Rendered pictures: scenes of the POV-Ray examples, ray-traced here.

A fifth of the report's test pictures are rendered. A renderer's edges are sharper than any lens's, with aliasing where
a game would have it, and pictures of that kind are rare in packages. POV-Ray is unpacked, not installed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from training.data import Split
from training.packages import DataError, unpack, with_dependencies

_SCENES = Path("usr/share/doc/povray/examples")
_INCLUDES = Path("usr/share/povray-3.7/include")
_LONGEST_S = 900


@dataclass(frozen=True)
class Scene:
    """A scene of the examples and how it is rendered."""

    path: str
    """Below the examples' folder."""
    width: int = 1920
    height: int = 1080
    antialiased: bool = True

    @property
    def name(self) -> str:
        """The picture's file name."""
        return f"{Path(self.path).stem}{'' if self.antialiased else '-aliased'}.png"


TEST = tuple(
    Scene(f"advanced/{path}", 3840, 2160)
    for path in (
        "biscuit.pov",
        "desk/desk.pov",
        "landscape.pov",
        "quilt1.pov",
        "wallstucco.pov",
        "woodbox.pov",
    )
)
TRAIN = tuple(
    Scene(path, antialiased=antialiased)
    for path in (
        "advanced/cliche/sign.pov",
        "advanced/lamppost.pov",
        "advanced/ntreal/ntreal.pov",
        "advanced/swirlbox.pov",
        "advanced/teapot/teapot.pov",
        "advanced/whiltile.pov",
        "camera/perspective.pov",
        "incdemo/chars.pov",
        "incdemo/glasses/samp_demo.pov",
        "incdemo/metals/golds.pov",
        "incdemo/stones/stones1.pov",
        "incdemo/sundial.pov",
        "incdemo/texture1.pov",
        "incdemo/woods/wood_1.pov",
        "interior/caustic2.pov",
        "language/trace-wicker.pov",
        "lights/shadows.pov",
        "objects/chesmsh.pov",
        "objects/mesh2.pov",
        "objects/primitiv.pov",
    )
    for antialiased in (True, False)
)


SCENES: dict[Split, tuple[Scene, ...]] = {"train": TRAIN, "test": TEST}
FOLDER = "povray-examples"
"""Below a split's folder, as if it were a package of pictures."""


def render(folder: Path) -> list[str]:
    """Render the scenes that are not yet in `folder`/<split>/povray-examples.

    Returns:
        A line for each scene that POV-Ray refused.

    Raises:
        DataError: the packages cannot be fetched, or POV-Ray renders nothing at all.
    """
    jobs = [
        (scene, picture)
        for split, scenes in SCENES.items()
        for scene in scenes
        if not (picture := folder / split / FOLDER / scene.name).exists()
    ]
    failures: list[str] = []
    if not jobs:
        return failures
    with tempfile.TemporaryDirectory(dir=folder.resolve()) as scratch:  # POV-Ray runs in its scene's folder
        root = unpack([*with_dependencies("povray"), "povray-examples", "povray-includes"], Path(scratch) / "root")
        for scene, picture in track(jobs, "rendering scenes"):
            partial = Path(scratch) / scene.name
            failure = _trace(root, scene, partial)
            if failure is None:
                picture.parent.mkdir(parents=True, exist_ok=True)
                partial.rename(picture)
            else:
                failures.append(f"{scene.path}: {failure}")
    if len(failures) == len(jobs):
        raise DataError(f"POV-Ray renders none of {len(jobs)} scenes; {failures[0]}")
    return failures


def _trace(root: Path, scene: Scene, picture: Path) -> str | None:
    """Render one scene; returns why it failed, or None."""
    source = root / _SCENES / scene.path
    libraries = sorted({str(file.parent) for file in (root / "usr/lib").rglob("*.so*")} | {str(root / "lib")})
    command = [
        str(root / "usr/bin/povray"),
        f"+I{source}",
        f"+O{picture}",
        f"+W{scene.width}",
        f"+H{scene.height}",
        "+A0.3" if scene.antialiased else "-A",
        "-D",
        "+FN8",
        f"+L{root / _INCLUDES}",
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries), "HOME": str(root)}
    try:
        done = subprocess.run(
            command, cwd=source.parent, env=environment, capture_output=True, text=True, check=False, timeout=_LONGEST_S
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return str(error)
    if done.returncode or not picture.exists():
        return (done.stderr.strip().splitlines() or ["no picture"])[-1]
    return None
