"""The gateway's image without a Docker engine: its environment and its files, made as the Dockerfile says, must do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import LIFELINE, free_port
from upscale_client import UpscaleClient

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
PLACES = ("/opt/gateway", "/src", "/app")
FRAME = np.zeros((90, 160, 3), np.uint8)


class Image:
    """What the Dockerfile makes, below a folder and not below /, with the packages that pip has cached."""

    def __init__(self, root: Path) -> None:
        self.entrypoint: list[str] = []
        self.healthcheck: list[str] = []
        self.user = ""
        self.environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        self._root = root
        self._folder = root
        self._stage = 0
        text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
        for line in text.replace("\\\n", " ").splitlines():
            word, _, rest = line.strip().partition(" ")
            if word and word != "EXPOSE":
                getattr(self, f"_{word.lower()}")(rest)

    def _from(self, _: str) -> None:
        self._stage += 1

    def _arg(self, rest: str) -> None:
        self._env(rest)

    def _env(self, rest: str) -> None:
        for pair in shlex.split(self._below(rest)):
            name, _, value = pair.partition("=")
            if name != "PIP_NO_CACHE_DIR":
                self.environment[name] = value.replace("$PATH", self.environment["PATH"])

    def _workdir(self, rest: str) -> None:
        self._folder = Path(self._below(rest))
        self._folder.mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        if sources[0].startswith("--from="):
            return  # it lies where the last stage looks for it
        for source in sources:
            # What is ignored is not sent to the engine.
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines(), f"{source} is in .dockerignore"
            to = self._folder / self._below(target)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, to)

    def _run(self, rest: str) -> None:
        if self._stage == 1:  # the last stage makes its user, which is not ours to make
            self.run(["sh", "-c", self._below(rest)], self._folder)

    def _user(self, rest: str) -> None:
        self.user = rest

    def _healthcheck(self, rest: str) -> None:
        self.healthcheck = json.loads(rest.partition("CMD")[2])

    def _entrypoint(self, rest: str) -> None:
        self.entrypoint = json.loads(rest)

    def _below(self, text: str) -> str:
        return re.sub(rf"(?<![\w./])({'|'.join(PLACES)})\b", rf"{self._root}\1", text)

    def run(self, command: list[str], folder: Path | None = None, **more: str) -> None:
        """Run a command in it; fails as it does."""
        environment = self.environment | more
        done = subprocess.run(
            command, cwd=folder or self._folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def start(self, **settings: object) -> subprocess.Popen[bytes]:
        """Start what its entry point says."""
        environment = self.environment | {f"UPSCALE_{name.upper()}": str(value) for name, value in settings.items()}
        return subprocess.Popen([*LIFELINE, *self.entrypoint], cwd=self._folder, env=environment)


@pytest.mark.timeout(300)
def test_the_image_holds_what_the_gateway_needs(tmp_path: Path, triton: EmbeddedTriton) -> None:
    image = Image(tmp_path)
    assert image.user.partition(":")[0] not in ("", "0", "root")
    assert not list(tmp_path.rglob("torch")), "the gateway knows nothing of networks"
    port, metrics_port = free_port(), free_port()
    gateway = image.start(
        host="127.0.0.1", port=port, metrics_port=metrics_port, triton_url=triton.url, default_profile="clean"
    )
    try:
        until_ready(gateway, metrics_port)
        with UpscaleClient(f"127.0.0.1:{port}") as client:
            assert client.upscale(FRAME, scale=2).array.shape == (180, 320, 3)
        image.run(image.healthcheck, UPSCALE_METRICS_PORT=str(metrics_port))
        gateway.terminate()
        assert gateway.wait(30) == 0
        with pytest.raises(AssertionError, match="refused"):
            image.run(image.healthcheck, UPSCALE_METRICS_PORT=str(metrics_port))
    finally:
        gateway.kill()
        gateway.wait()


def until_ready(gateway: subprocess.Popen[bytes], metrics_port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/readyz", timeout=2):
                return
        except OSError:
            assert gateway.poll() is None, "the gateway ended"
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_the_dockerfile_is_clean() -> None:
    subprocess.run([".venv/bin/hadolint", DOCKERFILE], cwd=ROOT, check=True)
