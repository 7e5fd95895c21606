"""Debian packages, downloaded and unpacked."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from training import packages
from training.packages import DataError, PoolFile, unpack

CONTROL = """Package: pictures
Version: 1
Architecture: all
Maintainer: Nobody <nobody@localhost>
Description: a picture
"""


def test_a_package_that_does_not_exist_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot fetch no-such-package: ") as caught:
        unpack(["no-such-package"], tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose subfolders `first` and `second` are served as the two pools."""
    served = tmp_path / "served"
    for name in ("first", "second"):
        (served / name).mkdir(parents=True)
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(packages, "_POOLS", (f"{host}/first/", f"{host}/second/"))
    yield served
    server.shutdown()
    server.server_close()


def test_a_version_that_left_the_first_pool_is_fetched_from_the_second(pools: Path, tmp_path: Path) -> None:
    built = tmp_path / "built"
    for path, content in (("DEBIAN/control", CONTROL), ("usr/share/picture.png", "pixels")):
        (built / path).parent.mkdir(parents=True, exist_ok=True)
        (built / path).write_text(content)
    file = pools / "second" / "pictures_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", built, file], check=True, capture_output=True)
    wanted = PoolFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest())
    root = unpack([wanted], tmp_path / "root")
    assert (root / "usr/share/picture.png").read_text() == "pixels"
    file.write_bytes(b"another file")
    with pytest.raises(DataError, match=r"cannot fetch pictures_1_all.deb \(.*404.*another file than it was") as caught:
        unpack([wanted], tmp_path / "again")
    assert "\n" not in str(caught.value)
