"""Starts and stops the real tritonserver of the nvidia-pytriton wheel on a model repository."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Self

# Put before a command: the process is asked to end when ours ends, however that ends. Not a preexec_fn: Python then
# forks, and now and then gRPC, whose threads were not copied, ends such a child before it becomes the program.
LIFELINE = ("setpriv", "--pdeathsig=TERM", "--")
_BACKENDS = Path(__file__).resolve().parent / "backends"
_SHARED_MEMORY = Path("/dev/shm")
_LOG_LINES = 12


class EmbeddedTritonError(RuntimeError):
    """The embedded Triton cannot be started; the message ends with its log's errors."""


def free_port() -> int:
    """A TCP port nobody listens on at this moment, of those that the system gives to no outgoing connection."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(first, 20_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class EmbeddedTriton:
    """A tritonserver process, usable as a context manager.

    Args:
        repository: the model repository; all its models are loaded.
        grpc_port, http_port, metrics_port: 0 picks a free one.
        grpc_address: that its gRPC port listens on.
        engine: what runs ONNX models on the CPU; see backends/onnxruntime/model.py.
        threads: of the engine; 0 means every core.
        log: a file that receives the server's log; by default a temporary one.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        grpc_address: str = "127.0.0.1",
        engine: str = "openvino",
        threads: int = 0,
        log: Path | None = None,
    ) -> None:
        self._repository = repository.resolve()
        self.grpc_port = grpc_port or free_port()
        self._grpc_address = grpc_address
        self.http_port = http_port or free_port()
        self.metrics_port = metrics_port or free_port()
        self._engine = engine
        self._threads = threads
        self._folder: Path | None = None
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Host and port of Triton's gRPC endpoint."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Where Triton's own Prometheus metrics are."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float | None = None) -> None:
        """Start the server and wait until every model is ready, by default for as long as their number may need.

        Raises:
            EmbeddedTritonError: it cannot be started, or is not ready in time.
        """
        models = len(list(self._repository.glob("*/config.pbtxt")))
        timeout_s = timeout_s or 120 + 15 * models
        if not models:
            raise EmbeddedTritonError(f"no models in {self._repository}: run 'python export/ --model runet' first")
        wheel = _wheel()
        self._folder = Path(tempfile.mkdtemp(prefix="upscale-triton-"))
        self._log = self._log or self._folder / "triton.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*LIFELINE, *self._command(wheel, _backend_folder(wheel, self._folder / "backends"))],
                env=self._environment(wheel),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C does not reach it, and kill() reaches its stubs.
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while not self._ready():
            if (code := self._process.poll()) is not None:
                raise EmbeddedTritonError(f"tritonserver ended with code {code} before it was ready\n{self._give_up()}")
            if time.monotonic() > deadline:
                raise EmbeddedTritonError(f"tritonserver was not ready after {timeout_s:.0f} s\n{self._give_up()}")
            time.sleep(0.05)

    def stop(self, grace_s: float = 15) -> None:
        """Ask the server to end, wait for it, and remove what it used; ends it by force after `grace_s`."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """End the server and its stubs at once, as a crash would, and remove what they used."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for region in _SHARED_MEMORY.glob(f"{self._region_prefix}*"):
            region.unlink(missing_ok=True)
        self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._log and self._folder in self._log.parents:
                self._log = None
            self._folder = None

    @contextlib.contextmanager
    def hanging(self) -> Generator[None]:
        """Have the server stand still meanwhile: it is there, and does not answer.

        Not its stubs: stopped and continued together with it, the locks between them run out, and then it ends by
        SIGSEGV, sometimes seconds later.
        """
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _region_prefix(self) -> str:
        return f"upscale_stub_{self.grpc_port}_"

    def _command(self, wheel: Path, backends: Path) -> list[str]:
        return [
            str(wheel / "tritonserver" / "bin" / "tritonserver"),
            f"--model-repository={self._repository}",
            f"--backend-directory={backends}",
            # Explicit, so that models can be loaded and unloaded while it runs; all are loaded at the start.
            "--model-control-mode=explicit",
            "--load-model=*",
            "--disable-auto-complete-config",
            # Each model's warm-up uses every core: several at a time would only need more memory.
            "--model-load-thread-count=2",
            "--http-address=127.0.0.1",
            f"--grpc-address={self._grpc_address}",
            "--metrics-address=127.0.0.1",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
            # A 4K frame is 25 MB: the stubs' regions start with room for two and grow by as much.
            *(
                f"--backend-config={backend},{setting}"
                for backend in ("python", "onnxruntime")
                for setting in (
                    f"shm-region-prefix-name={self._region_prefix}",
                    "shm-default-byte-size=67108864",
                    "shm-growth-byte-size=67108864",
                )
            ),
        ]

    def _environment(self, wheel: Path) -> dict[str, str]:
        libraries = [wheel.parent / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join([*map(str, libraries), os.environ.get("LD_LIBRARY_PATH", "")]),
            # The stub embeds an interpreter and takes the prefix, and so the packages, of the first python3 on the
            # PATH; it does not look at PYTHONPATH.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "EMBEDDED_TRITON_ENGINE": self._engine,
            "EMBEDDED_TRITON_PROJECT": str(_BACKENDS.parents[2]),
            "EMBEDDED_TRITON_THREADS": str(self._threads),
        }

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/v2/health/ready", timeout=1) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _give_up(self) -> str:
        assert self._log is not None
        lines = self._log.read_text(errors="replace").splitlines()
        # Triton's log is glog's: errors begin with E and the date. What broke is often far above the end.
        telling = [line for line in lines if re.match(r"E\d{4} ", line)] or lines
        self.kill()
        return "\n".join(telling[-_LOG_LINES:])


def _wheel() -> Path:
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise EmbeddedTritonError("the embedded Triton needs the package nvidia-pytriton: pip install --group embedded")
    return Path(found.origin).parent


def _backend_folder(wheel: Path, folder: Path) -> Path:
    """A backend folder with Triton's Python backend, the stub of this interpreter, and our Python-based backends."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise EmbeddedTritonError(f"nvidia-pytriton has no stub for Python {version}")
    python = folder / "python"
    python.mkdir(parents=True)
    # Copied: Triton refuses links that lead out of its backend folder.
    for file in (*(wheel / "tritonserver" / "backends" / "python").glob("*triton*"), stub):
        shutil.copy(file, python / file.name)
    for backend in ("onnxruntime",):
        shutil.copytree(_BACKENDS / backend, folder / backend, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
