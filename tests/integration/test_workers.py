"""Several gateways on one port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import ROOT, GatewayProcess
from service.frames import SHARED_MEMORY
from tests.conftest import StartGateway, metric
from upscale_client import UnavailableError, UpscaleClient

FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


def workers(gateway: GatewayProcess) -> set[int]:
    """The processes that serve; the supervisor has helpers of Python's own beside them."""
    found: set[int] = set()
    for child in psutil.Process(gateway.pid).children():
        with contextlib.suppress(psutil.Error):  # it has just died
            if any("spawn_main" in part for part in child.cmdline()):
                found.add(child.pid)
    return found


def answered(gateway: GatewayProcess) -> float:
    return metric(gateway, 'upscale_frames_total{code="OK"')


def ask_until_every_worker_has_answered(gateway: GatewayProcess, count: int) -> int:
    """Ask by new connections until each worker has shared memory of its own; returns the frames asked for."""
    for asked in range(1, 100):
        with UpscaleClient(gateway.address) as client:
            client.upscale(FRAME)
        files = [path for path in SHARED_MEMORY.glob("upscale-frames-*") if open_in(path) & workers(gateway)]
        if len(files) == count:
            return asked
    raise AssertionError("one of the workers gets no connections")


def open_in(path: Path) -> set[int]:
    """The processes that have a file open."""
    owners: set[int] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if descriptor.readlink() == path:
                        owners.add(process.pid)
    return owners


def test_workers_share_a_port_and_one_page_of_metrics(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, workers=2)
    assert len(workers(gateway)) == 2
    asked = ask_until_every_worker_has_answered(gateway, 2)
    time.sleep(0.5)
    assert answered(gateway) == asked
    assert metric(gateway, 'upscale_slots{state="free"}') == 2 * 16
    assert metric(gateway, "upscale_triton_up") == 1
    assert metric(gateway, "upscale_build_info") == 1
    assert metric(gateway, "upscale_workers") == metric(gateway, "upscale_ready") == 2
    assert time.time() - metric(gateway, "upscale_loop_turned_timestamp_seconds") < 5, "of the one that waits longest"
    gateway.stop()


def test_a_worker_that_dies_is_replaced_and_the_other_goes_on(
    triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(triton.url, workers=2)
    ask_until_every_worker_has_answered(gateway, 2)
    before = workers(gateway)
    frames = answered(gateway)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    served = 0
    deadline = time.monotonic() + 20
    while len(workers(gateway) - {victim}) < 2 or served < 10:
        assert time.monotonic() < deadline, "no new worker"
        try:
            with UpscaleClient(gateway.address) as client:
                client.upscale(FRAME)
                served += 1
        except UnavailableError:
            pass  # the port's queue of the dead worker
    assert before - {victim} <= workers(gateway)
    assert answered(gateway) >= frames + served, "what a dead worker counted stays counted"
    ask_until_every_worker_has_answered(gateway, 2)
    gateway.stop()


def test_a_second_service_on_the_port_is_told(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, workers=2)
    for count in ("1", "2"):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "service", "--host", "127.0.0.1", "--workers", count),
                *("--port", str(gateway.port), "--metrics-port", str(free_port())),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 2
        assert "is another gateway running?" in done.stderr
    gateway.stop()


def test_a_killed_supervisor_leaves_no_workers(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, workers=2)
    left = workers(gateway)
    os.kill(gateway.pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in left):
        assert time.monotonic() < deadline, "workers outlived their supervisor"
        time.sleep(0.1)
    gateway.stop()
