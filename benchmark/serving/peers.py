"""Other ways to serve a Python model, each in a process and an environment of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmark.errors import BenchmarkError
from deploy.embedded.server import LIFELINE, free_port
from deploy.local import ROOT

ENVIRONMENT = ROOT / ".venv-peers"
_APPS = ROOT / "benchmark" / "peers"
_START_S = 90
_STOP_S = 10


@dataclass(frozen=True)
class Peer:
    """A server, and how it is started; `{port}` in its command is the port."""

    name: str
    label: str
    command: tuple[str, ...]
    health: str


_BENTOML = ("bentoml", "serve", "--host=127.0.0.1", "--port={port}", "--quiet", f"--working-dir={_APPS}")
PEERS = (
    Peer("litserve", "LitServe", ("python", str(_APPS / "litserve_app.py")), "/health"),
    Peer("bentoml", "BentoML", (*_BENTOML, "bentoml_app:Upscaler"), "/readyz"),
    Peer("bentoml_hosted", "BentoML as a mere host", (*_BENTOML, "bentoml_app:Hosted"), "/readyz"),
)


def check_installed() -> None:
    """See that the peers can be started.

    Raises:
        BenchmarkError: they are not installed.
    """
    if not all((ENVIRONMENT / "bin" / peer.command[0]).exists() for peer in PEERS):
        raise BenchmarkError(f"no peers in {ENVIRONMENT.name}: run 'make peers', or leave them out with --no-peers")


def versions() -> dict[str, str]:
    """Of the peers, as they are pinned."""
    pinned = re.findall(r"^(\S+)==(\S+)$", (_APPS / "requirements.txt").read_text(), re.MULTILINE)
    names = {peer.name for peer in PEERS}
    return {name: version for name, version in pinned if name in names}


@contextmanager
def serving(peer: Peer, model: str, threads: int) -> Generator[tuple[int, int]]:
    """Run a peer; yields its process and its port.

    Args:
        peer: which one.
        model: "identity", or the path of an ONNX model.
        threads: of ONNX Runtime.

    Raises:
        BenchmarkError: it does not start.
    """
    port = free_port()
    program, *arguments = (part.format(port=port) for part in peer.command)
    with tempfile.TemporaryDirectory(prefix="upscale-peer-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*LIFELINE, str(ENVIRONMENT / "bin" / program), *arguments],
                env=os.environ
                | {"PEER_MODEL": model, "PEER_THREADS": str(threads), "PEER_PORT": str(port)}
                | {"BENTOML_HOME": folder, "BENTOML_DO_NOT_TRACK": "True"},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            deadline = time.monotonic() + _START_S
            while not _healthy(f"http://127.0.0.1:{port}{peer.health}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    last = (log.read_text(errors="replace").strip().splitlines() or ["its log is empty"])[-1]
                    raise BenchmarkError(f"the peer {peer.name} does not start: {last}")
                time.sleep(0.1)
            yield process.pid, port
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # LitServe leaves its workers behind when it is asked to end.
    family = [process.pid]
    with suppress(psutil.NoSuchProcess):
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
