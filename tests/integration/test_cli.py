"""The command line, as its user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.embedded.server import free_port
from deploy.local import GatewayProcess

Pixels = NDArray[np.uint8]


def upscale4k(*arguments: object, address: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("upscale4k")), *map(str, arguments), "--address", address]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={"COLUMNS": "200"})


@pytest.fixture
def pictures(tmp_path: Path, lr_1080p: Pixels) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    image = Image.fromarray(lr_1080p[300:435, 200:440])
    image.save(folder / "a.png")
    image.save(folder / "a.jpg")
    image.save(folder / "b.webp")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_one_picture(gateway: GatewayProcess, pictures: Path) -> None:
    done = upscale4k(pictures / "a.jpg", "-o", pictures / "out" / "big.png", address=gateway.address)
    assert done.returncode == 0, done.stderr
    with Image.open(pictures / "out" / "big.png") as big:
        assert (big.format, big.size) == ("PNG", (720, 405))
    assert "720x405 by runet_x3_clean" in done.stderr


def test_the_output_is_named_after_the_source_and_the_format(gateway: GatewayProcess, pictures: Path) -> None:
    done = upscale4k(pictures / "a.png", "--format", "webp", "--scale", 2, "--quality", 80, address=gateway.address)
    assert done.returncode == 0, done.stderr
    with Image.open(pictures / "a_4k.webp") as big:
        assert (big.format, big.size) == ("WEBP", (480, 270))


def test_a_folder(gateway: GatewayProcess, pictures: Path) -> None:
    done = upscale4k(pictures, "-o", pictures / "out", address=gateway.address)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (pictures / "out").iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]


def test_a_broken_picture_fails_alone(gateway: GatewayProcess, pictures: Path) -> None:
    (pictures / "c.png").write_bytes((pictures / "a.png").read_bytes()[:500])
    done = upscale4k(pictures, address=gateway.address)
    assert done.returncode == 1
    assert "c.png: frame.data is not a whole PNG picture" in done.stderr
    assert re.search(r"\(request id [0-9a-f]{32}\)", done.stderr)
    assert "Traceback" not in done.stderr
    assert len(list(pictures.with_name("pictures_4k").iterdir())) == 3


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere.png", [], "nowhere.png does not exist"),
        ("empty", [], "no pictures (.png, .jpg, .jpeg, .webp) in"),
        ("pictures/a.png", ["-o", "big.gif"], "big.gif: the output's name must end in one of .png"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    gateway: GatewayProcess, pictures: Path, source: str, options: list[str], words: str
) -> None:
    (pictures.parent / "empty").mkdir()
    done = upscale4k(pictures.parent / source, *options, address=gateway.address)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_service_is_told(pictures: Path) -> None:
    done = upscale4k(pictures / "a.png", address=f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert "Traceback" not in done.stderr
