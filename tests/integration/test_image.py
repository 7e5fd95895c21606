"""The gateway's image without a Docker engine: its environment and its files, made as the Dockerfile says, must do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import LIFELINE, free_port
from upscale_client import UpscaleClient

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
PLACES = ("/opt/gateway", "/src", "/app")
# A command's file system as a container may have it, the image's folder being /mnt. Its arguments: that folder, the one
# in it to start in, the user and the group, where this Python is installed, and the command.
CONFINED = (
    "unshare",
    "--mount",
    "sh",
    "-ec",
    """
    mount --bind "$1" /mnt
    mount -t tmpfs tmpfs /tmp
    case $4 in /usr*) ;; *)
      # The image has its Python where everybody may read it; here it may be in root's own folder.
      mkdir /tmp/python
      mount --bind "$4" /tmp/python
      top=${4#/}
      mount -t tmpfs -o mode=755 tmpfs "/${top%%/*}"
      mkdir -p "$4"
      mount --move /tmp/python "$4"
    esac
    mount -o remount,bind,ro /mnt
    mount -o remount,bind,ro /
    cd "/mnt/$2"
    user=$3
    shift 4
    exec setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups --no-new-privs --bounding-set=-all \\
      --inh-caps=-all -- "$@"
    """,
    "sh",
)
FRAME = np.zeros((90, 160, 3), np.uint8)


class Image:
    """What the Dockerfile makes, below a folder and not below /, with the packages that pip has cached."""

    def __init__(self, root: Path) -> None:
        self.entrypoint: list[str] = []
        self.healthcheck: list[str] = []
        self.user = ""
        self.environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
        self.root = root
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
        return re.sub(rf"(?<![\w./])({'|'.join(PLACES)})\b", rf"{self.root}\1", text)

    def run(self, command: list[str], folder: Path | None = None, **more: str) -> None:
        """Run a command in it; fails as it does."""
        environment = self.environment | more
        done = subprocess.run(
            command, cwd=folder or self._folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def start(self, *, confined: bool = False, **settings: object) -> subprocess.Popen[bytes]:
        """Start what its entry point says; `confined` as its user, without rights, on a read-only file system."""
        environment = self.environment | {f"UPSCALE_{name.upper()}": str(value) for name, value in settings.items()}
        command = self.entrypoint
        if confined:
            command = [
                *CONFINED,
                str(self.root),
                str(self._folder.relative_to(self.root)),
                self.user,
                sys.base_prefix,
                *command,
            ]
            environment["PATH"] = environment["PATH"].replace(str(self.root), "/mnt")
        return subprocess.Popen([*LIFELINE, *command], cwd=self._folder, env=environment)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Made once."""
    root = tmp_path_factory.mktemp("image")
    root.chmod(0o755)
    return Image(root)


@pytest.mark.timeout(300)
def test_the_image_holds_what_the_gateway_needs(image: Image, triton: EmbeddedTriton) -> None:
    assert not list(image.root.rglob("torch")), "the gateway knows nothing of networks"
    with running(image, triton) as (gateway, metrics_port):
        image.run(image.healthcheck, UPSCALE_METRICS_PORT=str(metrics_port))
        gateway.terminate()
        assert gateway.wait(30) == 0
        with pytest.raises(AssertionError, match="refused"):
            image.run(image.healthcheck, UPSCALE_METRICS_PORT=str(metrics_port))


def test_it_needs_no_rights_and_writes_to_tmp_and_shared_memory_alone(image: Image, triton: EmbeddedTriton) -> None:
    assert image.user.partition(":")[0] not in ("", "0", "root")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mount namespaces (unshare --mount needs root)")
    # With workers, for they keep their metrics in files.
    with running(image, triton, confined=True, workers=2, triton_shared_memory="on") as (gateway, _):
        status = dict(line.split(":\t") for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines())
        assert (status["Uid"].split()[0], status["CapBnd"], status["NoNewPrivs"]) == ("1000", "0" * 16, "1")
        with pytest.raises(OSError, match="Read-only file system"):
            Path(f"/proc/{gateway.pid}/root/mnt/app/written").touch()


@contextmanager
def running(
    image: Image, triton: EmbeddedTriton, *, confined: bool = False, workers: int = 1, **settings: object
) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """A gateway of the image that has answered a frame; its process and the port of its metrics."""
    ports = {"port": free_port(), "metrics_port": free_port()}
    settings = {
        "host": "127.0.0.1",
        "workers": workers,
        "triton_url": triton.url,
        "default_profile": "clean",
        **ports,
        **settings,
    }
    gateway = image.start(confined=confined, **settings)
    try:
        until_ready(gateway, ports["metrics_port"], workers)
        with UpscaleClient(f"127.0.0.1:{ports['port']}") as client:
            assert client.upscale(FRAME, scale=2).array.shape == (180, 320, 3)
        yield gateway, ports["metrics_port"]
        gateway.terminate()
        assert gateway.wait(30) == 0
    finally:
        gateway.kill()
        gateway.wait()


def until_ready(gateway: subprocess.Popen[bytes], metrics_port: int, workers: int) -> None:
    """Wait until every worker can answer frames; the probe asks for one."""
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
            if f"upscale_ready {workers}.0" in lines:
                return
        assert gateway.poll() is None, "the gateway ended"
        assert time.monotonic() < deadline, "the gateway is not ready"
        time.sleep(0.1)


def test_the_dockerfile_is_clean() -> None:
    subprocess.run([".venv/bin/hadolint", DOCKERFILE], cwd=ROOT, check=True)
