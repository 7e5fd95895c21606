"""`python -m deploy.local`: the embedded Triton and the gateway on this machine, started and stopped together."""

from __future__ import annotations

import http
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer

from deploy.embedded.server import LIFELINE, EmbeddedTriton, EmbeddedTritonError
from service.settings import Settings, env_name

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = ROOT / "model_repository"


class LocalStackError(RuntimeError):
    """The service cannot be started on this machine; the message says why."""


class GatewayProcess:
    """A gateway in a process of its own.

    Args:
        triton_url: host and port of Triton's gRPC endpoint.
        settings: settings by name, over those of the environment.
        log: a file for its log; None leaves it on this process's output.
        wrapper: a command to start it under, such as nice, numactl or unshare.
    """

    def __init__(
        self,
        triton_url: str,
        settings: dict[str, object] | None = None,
        log: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self._wrapper = wrapper
        chosen = {**(settings or {}), "triton_url": triton_url}
        self._environment = os.environ | {env_name(name): str(value) for name, value in chosen.items()}
        effective = Settings(**chosen)  # pyright: ignore[reportArgumentType]
        self.port = effective.port
        self.metrics_port = effective.metrics_port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port for clients on this machine."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The gateway's process."""
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 30) -> None:
        """Start it and wait until it can answer frames.

        Raises:
            LocalStackError: its port is taken, it ended, or it is not ready in time.
        """
        with socket.socket() as probe:
            # Somebody else's gateway would answer our health checks.
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise LocalStackError(f"port {self.port} is taken: set UPSCALE_PORT to another")
        output = self._log.open("ab") if self._log else None
        self._process = subprocess.Popen(
            [*LIFELINE, *self._wrapper, sys.executable, "-m", "service"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches us alone; we stop the parts in order
        )
        if output:
            output.close()
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if (code := self._process.poll()) is not None:
                raise LocalStackError(f"the gateway ended with code {code} before it was ready{self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise LocalStackError(f"the gateway was not ready after {timeout_s:.0f} s")
            time.sleep(0.05)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log else []
        return f": {lines[-1]}" if lines else ""

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/readyz", timeout=1) as answer:
                return answer.status == http.HTTPStatus.OK
        except OSError:  # nobody listens yet, or it says that it is not
            return False

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def terminate(self) -> None:
        """Ask it to stop, and do not wait."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def stop(self, timeout_s: float = 30) -> None:
        """Stop it gracefully, and by force if that takes too long."""
        if self._process is None:
            return
        self.terminate()
        try:
            self.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class LocalStack:
    """The embedded Triton and a gateway; a context manager. Stopped in reverse: the gateway first."""

    def __init__(
        self, triton: EmbeddedTriton, settings: dict[str, object] | None = None, log: Path | None = None
    ) -> None:
        self.triton = triton
        self.gateway = GatewayProcess(triton.url, settings, log)

    def start(self) -> None:
        """Start both and wait until they are ready.

        Raises:
            EmbeddedTritonError, LocalStackError: one of them cannot be started; the other is stopped.
        """
        try:
            self.triton.start()
            self.gateway.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both."""
        self.gateway.stop()
        self.triton.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    repository: Annotated[Path, typer.Option(help="The Triton model repository.")] = REPOSITORY,
    triton_port: Annotated[int, typer.Option(help="Triton's gRPC port; 0 picks a free one.")] = 8001,
    triton_metrics_port: Annotated[int, typer.Option(help="Triton's metrics port; 0 picks a free one.")] = 8002,
    engine: Annotated[str, typer.Option(help="openvino, openvino-bf16, onnxruntime or torch.")] = "openvino",
    triton_log: Annotated[Path, typer.Option(help="File for Triton's log.")] = ROOT / "out" / "triton.log",
) -> None:
    """Run embedded Triton and gateway until Ctrl-C. The gateway's settings come from UPSCALE_* variables."""
    stop_signals = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the start-up the same way
    triton = EmbeddedTriton(
        repository, grpc_port=triton_port, metrics_port=triton_metrics_port, engine=engine, log=triton_log
    )
    try:
        stack = LocalStack(triton)
        stack.start()
    except (EmbeddedTritonError, LocalStackError, ValueError) as error:
        print(f"deploy.local: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    gateway = stack.gateway
    print(
        f"\nready: gRPC on port {gateway.port}, metrics at http://127.0.0.1:{gateway.metrics_port}/metrics", flush=True
    )
    print(f"try:   .venv/bin/upscale4k picture.jpg -o picture_4k.png --address {gateway.address}", flush=True)
    print("Ctrl-C stops both.\n", flush=True)
    ended = ""
    while not ended and signal.sigtimedwait(stop_signals, 1) is None:
        ended = "" if gateway.running else "the gateway"
        ended = ended if triton.running else f"Triton (its log: {triton_log})"
    stack.stop()
    if ended:
        print(f"deploy.local: {ended} ended by itself; stopped the rest", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(serve)
