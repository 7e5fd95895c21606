"""More than one core: several gateways on one port, watched over by a process that serves their metrics as one.

The kernel spreads connections over the workers (SO_REUSEPORT); a connection stays with its worker, and so do the
regions it shares. Workers have nothing in common but the port, so one that dies takes only its own frames with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Generator, Iterable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service import logs
from service.app import StartError, access, serve
from service.ops import OpsServer
from service.settings import Settings
from upscale_client.allocator import keep_large_buffers

log = logging.getLogger(__name__)

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name for it
_PR_SET_PDEATHSIG = 1
_RESTART_S = (0.2, 30.0)
"""The pause before a worker that died is replaced: at first, and at most; it doubles while they die young."""
_YOUNG_S = 10.0
_KILL_AFTER_S = 10.0


def run_workers(settings: Settings) -> None:
    """Run `settings.workers` gateways until SIGTERM or SIGINT, then stop them gracefully.

    Raises:
        StartError: a port is taken, or a file of the settings makes no sense.
    """
    access(settings)  # once, before every worker fails of it
    folder = tempfile.mkdtemp(prefix="upscale-metrics-")
    os.environ[METRICS_FOLDER] = folder
    try:
        with _hold_port(settings) as port:
            registry = CollectorRegistry()
            registry.register(WorkersMetrics(Path(folder)))
            host = settings.metrics_host or settings.host
            try:
                ops = OpsServer(
                    host,
                    settings.metrics_port,
                    registry,
                    ready=lambda: bool(registry.get_sample_value("upscale_ready")),
                )
            except OSError as error:
                raise StartError(
                    f"cannot listen on {host}:{settings.metrics_port} for metrics: {error.strerror}"
                ) from None
            log.info("%d workers on port %d, metrics on port %d", settings.workers, port, ops.port)
            try:
                _Supervisor(settings.model_copy(update={"port": port})).run()
            finally:
                ops.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WorkersMetrics(Collector):
    """The metrics that all workers wrote into a folder, as one.

    As prometheus_client's own collector, but for files that are still empty. A worker that starts makes a file before
    it gives it a size; met in between, or left so by a worker that was killed then, it would fail every look at the
    metrics (prometheus/client_python#1199), and readiness is one of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Read them all."""
        return MultiProcessCollector.merge([str(file) for file in self._folder.glob("*.db") if _has_content(file)])


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # of a worker that has just been buried
        return False


@contextlib.contextmanager
def _hold_port(settings: Settings) -> Generator[int]:
    """Make sure that nobody else has the port, and keep it for the workers; yields its number."""
    where = f"{settings.host}:{settings.port}"
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.host, settings.port))
            port: int = probe.getsockname()[1]
        with socket.socket() as held:
            # Bound and never listened on: it gets no connection.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((settings.host, port))
            yield port
    except OSError as error:
        raise StartError(f"cannot listen on {where}: {error.strerror}; is another gateway running?") from None


class _Supervisor:
    """Keeps the workers running."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Not forked: gRPC's threads do not survive that.
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, BaseProcess] = {}
        self._born: dict[int, float] = {}
        self._pause_s = dict.fromkeys(range(settings.workers), _RESTART_S[0])
        self._due: dict[int, float] = dict.fromkeys(range(settings.workers), 0.0)
        self._stopping = False

    def run(self) -> None:
        """Start the workers, replace those that die, and stop them all when a signal comes."""
        # The pipe wakes the wait below when a signal comes.
        reader, writer = socket.socketpair()
        writer.setblocking(False)

        def stop(*_: object) -> None:
            self._stopping = True
            with contextlib.suppress(OSError):
                writer.send(b"x")

        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, stop)
        while not self._stopping:
            now = time.monotonic()
            for number in [number for number, due in self._due.items() if due <= now]:
                del self._due[number]
                self._start(number)
            sentinels = {worker.sentinel: number for number, worker in self._workers.items()}
            soonest = min(self._due.values(), default=None)
            ended = wait([*sentinels, reader], None if soonest is None else max(0.0, soonest - now))
            for number in [sentinels[each] for each in ended if isinstance(each, int) and each in sentinels]:
                self._bury(number)
        self._stop_all()

    def _start(self, number: int) -> None:
        worker = self._context.Process(target=_work, args=(self._settings, os.getpid()), name=f"worker-{number}")
        worker.start()
        self._workers[number] = worker
        self._born[number] = time.monotonic()

    def _bury(self, number: int) -> None:
        worker = self._workers.pop(number)
        worker.join()
        assert worker.pid is not None
        mark_process_dead(worker.pid)
        if self._stopping:
            return
        young = time.monotonic() - self._born[number] < _YOUNG_S
        pause = self._pause_s[number] = min(2 * self._pause_s[number], _RESTART_S[1]) if young else _RESTART_S[0]
        log.error("worker %d (process %d) ended with %s; another in %g s", number, worker.pid, worker.exitcode, pause)
        self._due[number] = time.monotonic() + pause

    def _stop_all(self) -> None:
        log.info("stopping %d workers", len(self._workers))
        for worker in self._workers.values():
            worker.terminate()
        deadline = time.monotonic() + self._settings.shutdown_grace_s + _KILL_AFTER_S
        for number, worker in list(self._workers.items()):
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                log.error("worker %d did not stop: killed", number)
                worker.kill()
                worker.join()


def _work(settings: Settings, supervisor: int) -> None:
    """One worker of the process `supervisor`."""
    # With its supervisor killed, nobody would count or stop it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:  # it was killed before that
        raise SystemExit(1)
    logs.configure(settings, one_of_many=True)
    keep_large_buffers()
    try:
        asyncio.run(serve(settings, one_of_many=True))
    except StartError as error:
        log.error("%s", error)
        raise SystemExit(2) from None
