"""Debian packages, downloaded and unpacked without installing them: no root is needed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path


class DataError(RuntimeError):
    """A package could not be fetched or used; the message says which and why."""


def unpack(packages: Sequence[str], root: Path) -> Path:
    """Unpack packages below `root`, which is made if it is not there; returns it as an absolute path.

    Raises:
        DataError: this is no Debian machine, or a package cannot be downloaded.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError(
            "apt-get and dpkg-deb are needed to fetch Debian packages; or name your own folder with --images"
        )
    root = root.resolve()  # the commands run in other folders
    with tempfile.TemporaryDirectory() as scratch:
        _run(["apt-get", "download", *packages], scratch, f"cannot fetch {', '.join(packages[:3])}")
        for file in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg-deb", "-x", str(file), str(root)], scratch, f"cannot unpack {file.name}")
    return root


def with_dependencies(package: str) -> list[str]:
    """`package` and all it depends on, less the C and C++ run time, which the machine has."""
    without = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    command = ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in without), package]
    listed = _run(command, "/", f"cannot look up {package}").splitlines()
    names = {line for line in listed if line[:1].isalnum()}
    return sorted(name for name in names if not name.startswith(("libc6", "libgcc", "libstdc++", "gcc-")))


def _run(command: list[str], folder: str, failure: str) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DataError(f"{failure}: there is no {command[0]} on this machine") from None
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise DataError(f"{failure}: {''.join(reason)} (is 'apt-get update' due?)")
    return done.stdout
