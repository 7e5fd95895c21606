"""The README's commands, as a stranger runs them (less the set-up, which got us here)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import psutil
import pytest
from PIL import Image

from deploy.embedded.server import free_port
from upscale_client import UpscaleClient

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "nuthatch_4k.jpg"


def processes_of(repository: Path) -> list[psutil.Process]:
    """The tritonservers on a repository."""
    argument = f"--model-repository={repository}"
    return [process for process in psutil.process_iter(["cmdline"]) if argument in (process.info["cmdline"] or ())]


@pytest.mark.parametrize("scale", [2, 3])
def test_demo(repository: Path, tmp_path: Path, scale: int) -> None:
    command = [sys.executable, "-m", "deploy.demo", "--scale", str(scale)]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--repository", str(repository)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "demo.json").read_text())
    assert report.keys() == {"png", "width", "height", "variant", "psnr", "psnr_bicubic", "stages_ms"}
    assert done.stdout.rstrip().endswith(report["png"])
    with Image.open(report["png"]) as png:
        assert (png.format, png.size) == ("PNG", (3840, 2160))
    assert report["psnr"] > report["psnr_bicubic"] + 0.1
    assert report["stages_ms"].keys() == {"receive", "decode", "queue", "infer", "encode"}
    assert (tmp_path / "demo_comparison.png").exists()


def test_serve_until_ctrl_c(repository: Path, tmp_path: Path) -> None:
    port, metrics_port = free_port(), free_port()
    environment = os.environ | {"UPSCALE_PORT": str(port), "UPSCALE_METRICS_PORT": str(metrics_port)}
    command = [sys.executable, "-m", "deploy.local", "--triton-port=0", "--triton-metrics-port=0"]
    with subprocess.Popen(
        [*command, f"--repository={repository}", f"--triton-log={tmp_path / 'triton.log'}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while "Ctrl-C" not in "".join(lines):
            line = process.stdout.readline()
            assert line, "".join(lines)
            lines.append(line)
        assert f"ready: gRPC on port {port}" in "".join(lines)
        with UpscaleClient(f"127.0.0.1:{port}") as client:
            assert len(client.list_models()) == 2
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
            assert b"upscale_triton_up" in answer.read()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(40) == 0
    assert not processes_of(repository), "something was left running"


def test_serve_ends_when_a_part_of_it_does(repository: Path, tmp_path: Path) -> None:
    environment = os.environ | {"UPSCALE_PORT": str(free_port()), "UPSCALE_METRICS_PORT": str(free_port())}
    command = [sys.executable, "-m", "deploy.local", "--triton-port=0", "--triton-metrics-port=0"]
    with subprocess.Popen(
        [*command, f"--repository={repository}", f"--triton-log={tmp_path / 'triton.log'}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "Ctrl-C" not in process.stdout.readline():
            assert process.poll() is None
        (server,) = processes_of(repository)
        server.kill()
        _, errors = process.communicate(timeout=40)
    assert process.returncode == 1
    assert "deploy.local: Triton (its log:" in errors


def test_serve_without_models_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", f"--repository={tmp_path}", "--triton-port=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("deploy.local: no models in")
    assert "Traceback" not in done.stderr


def test_the_wheel_is_the_client_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
        metadata = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"upscale_client"}
    needs = set(re.findall(r"^Requires-Dist: ([\w-]+)", metadata, re.MULTILINE))
    assert needs == {"googleapis-common-protos", "grpcio", "numpy", "protobuf", "rich", "typer"}


def test_help_names_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "serve", "test", "lint", "proto", "clean"):
        assert any(line.startswith(target) for line in done.stdout.splitlines())
