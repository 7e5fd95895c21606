"""Debian packages, downloaded and unpacked without installing them: no root is needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

# The second keeps what the first had, for ever.
_POOLS = (
    "http://deb.debian.org/debian/pool/main/",
    "https://snapshot.debian.org/archive/debian/20261120T000000Z/pool/main/",
)
_POOL_TIMEOUT = 60.0  # seconds without an answer


class DataError(RuntimeError):
    """A package could not be fetched or used; the message says which and why."""


@dataclass(frozen=True)
class PoolFile:
    """A certain version of a package in Debian's pool, whatever release it belongs to."""

    path: str
    """Below pool/main/."""
    sha256: str


def unpack(packages: Sequence[str | PoolFile], root: Path) -> Path:
    """Unpack packages below `root`, which is made if it is not there; returns it as an absolute path.

    A name is the version that this machine's Debian has.

    Raises:
        DataError: this is no Debian machine, or a package cannot be downloaded.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise DataError(
            "apt-get and dpkg-deb are needed to fetch Debian packages; or name your own folder with --images"
        )
    root = root.resolve()  # the commands run in other folders
    with tempfile.TemporaryDirectory() as scratch:
        names = [package for package in packages if isinstance(package, str)]
        if names:
            _run(["apt-get", "download", *names], scratch, f"cannot fetch {', '.join(names[:3])}")
        for package in packages:
            if isinstance(package, PoolFile):
                (Path(scratch) / Path(package.path).name).write_bytes(_fetch(package))
        for file in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg-deb", "-x", str(file), str(root)], scratch, f"cannot unpack {file.name}")
    return root


def _fetch(file: PoolFile) -> bytes:
    failures: list[str] = []
    for pool in _POOLS:
        url = pool + file.path
        try:
            with urlopen(url, timeout=_POOL_TIMEOUT) as answer:
                data: bytes = answer.read()
        except (URLError, TimeoutError, ConnectionError) as error:
            failures.append(f"{url}: {error}")
            continue
        if hashlib.sha256(data).hexdigest() == file.sha256:
            return data
        failures.append(f"{url}: it is another file than it was")
    raise DataError(f"cannot fetch {Path(file.path).name} ({'; '.join(failures)})")


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
