"""Two hosts, each with a Triton and a gateway, behind HAProxy; one of them is cut off under load, and comes back."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import LIFELINE
from deploy.local import ROOT, GatewayProcess
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from tests.authority import Authority
from tests.hosts import Host, Switch
from tests.integration.two_hosts_client import AT_ONCE

HAPROXY = Path(sys.executable).parent / "haproxy"
GRPC, READY, TRITON, EDGE = 50051, 9464, 8001, 8443
INFER_TIMEOUT_S = 30.0
"""Much longer than it may take until a vanished host is missed."""
AWAY_S = 10.0
ENOUGH = 40
"""Frames that say that something works."""
PATIENCE_S = 90.0
"""For them, on a machine that others use, too."""


class Site:
    """A host with a Triton and a gateway that knows the Tritons of both."""

    def __init__(self, host: Host, repository: Path, log: Path) -> None:
        self.host = host
        self.triton = EmbeddedTriton(repository, grpc_port=TRITON, grpc_address=host.address, threads=1, log=log)
        self._log = log.with_suffix(".gateway.log")
        self.gateway: GatewayProcess | None = None
        host.do(self.triton.start)

    def serve(self, tritons: str) -> None:
        """Start the gateway."""
        settings: dict[str, object] = {
            "host": "0.0.0.0",
            "port": GRPC,
            "metrics_port": READY,
            "default_profile": "clean",
            "warm_up_s": 1,
            "max_output_pixels": 1 << 16,
            "infer_timeout_s": INFER_TIMEOUT_S,
        }
        self.gateway = GatewayProcess(tritons, settings, self._log)
        self.host.do(self.gateway.start)

    def metric(self, name: str) -> float:
        """The sum over a metric's samples whose line begins with `name`."""
        lines = self.host.do(lambda: _read(f"http://127.0.0.1:{READY}/metrics")).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def inferred(self) -> float:
        """Frames that its Triton has inferred for anybody."""
        lines = self.host.do(lambda: _read(self.triton.metrics_url)).splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("nv_inference_count{"))

    def mapped(self) -> set[str]:
        """Regions that its Triton has mapped."""
        place = f"http://127.0.0.1:{self.triton.http_port}/v2/systemsharedmemory/status"
        return {region["key"].lstrip("/") for region in json.loads(self.host.do(lambda: _read(place)))}

    def stop(self) -> None:
        """Stop both."""
        if self.gateway is not None:
            self.host.do(self.gateway.stop)
        self.host.do(self.triton.stop)


class Client:
    """What a client on a host of its own sees."""

    def __init__(self, host: Host, address: str, ca: Path, expected: Path) -> None:
        command = [sys.executable, "-m", "tests.integration.two_hosts_client", address, str(ca), str(expected)]
        self._process = host.do(
            lambda: subprocess.Popen([*LIFELINE, *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        self.frames: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.frames.append(json.loads(line))

    def right_since(self, moment: float) -> int:
        """Frames that were sent after the moment and answered rightly."""
        return sum(frame["right"] is True for frame in list(self.frames) if frame["sent"] >= moment)

    def failed_since(self, moment: float) -> list[dict[str, Any]]:
        """Frames that ended after the moment, and without an answer."""
        return [frame for frame in list(self.frames) if frame["ended"] >= moment and frame["code"] != "OK"]

    def stop(self) -> None:
        """Let it end what it has, and read that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(60)
        self._reader.join()


def until(what: Callable[[], bool], said: str) -> float:
    """Wait for something; returns when it was."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    return time.monotonic()


def _read(place: str) -> str:
    with urllib.request.urlopen(place, timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture
def hosts() -> Iterator[dict[str, Host]]:
    """Hosts a, b, edge and client, and the switch between them."""
    links = set(Path("/sys/class/net").iterdir())
    started = set(psutil.Process().children(recursive=True))
    with contextlib.ExitStack() as stack:
        switch = Switch()
        stack.callback(switch.close)
        hosts: dict[str, Host] = {}
        for name in ("a", "b", "edge", "client"):
            hosts[name] = Host(name)
            stack.callback(hosts[name].close)
            switch.join(hosts[name])
        yield cast("dict[str, Host]", {**hosts, "switch": switch})
    left = set(psutil.Process().children(recursive=True)) - started
    assert not left, "processes are left over"
    assert set(Path("/sys/class/net").iterdir()) == links


@pytest.mark.timeout(600)
def test_a_host_that_vanishes_is_done_without_and_used_again_when_it_is_back(
    hosts: dict[str, Any], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    switch: Switch = hosts["switch"]
    repository = tmp_path / "models"
    export_variant(get("runet"), 2, "clean", repository=repository, weights=WEIGHTS_DIR)
    authority = Authority(tmp_path, "our-ca")
    pair = authority.issue("localhost", "edge", hosts["edge"].address)
    whole = tmp_path / "edge.pem"
    whole.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
    with contextlib.ExitStack() as stack:
        a, b = (Site(hosts[name], repository, tmp_path / f"{name}.log") for name in ("a", "b"))
        stack.callback(b.stop)
        stack.callback(a.stop)
        tritons = ",".join(f"{site.host.address}:{TRITON}" for site in (a, b))
        for site in (a, b):
            site.serve(tritons)
        expected = _expected(a, tmp_path / "expected.npz")
        balancer = _balancer(hosts["edge"], whole, a, b, tmp_path / "haproxy.log")
        stack.callback(balancer.wait, 30)
        stack.callback(balancer.terminate)
        client = Client(hosts["client"], f"{hosts['edge'].address}:{EDGE}", authority.certificate, expected)
        stack.callback(client.stop)

        # Both hosts work for it, and each gateway uses both Tritons: its own by shared memory, the other by bytes.
        until(lambda: client.right_since(0) >= ENOUGH, f"no frames are answered: {client.frames[-3:]}")
        for site in (a, b):
            until(lambda site=site: site.metric('upscale_frames_total{code="OK"') > 0, "a gateway gets no frames")
            until(lambda site=site: site.metric("upscale_triton_up") == 2, "a gateway does not know both Tritons")
            mapped = site.mapped()
            assert mapped, "a Triton does not share its own host's memory"
            assert mapped <= site.host.shared_memory(), "a Triton has mapped what is not of its host"
        assert not client.failed_since(0)

        cut = time.monotonic()
        switch.cut(b.host)
        until(lambda: client.right_since(cut + AWAY_S) >= ENOUGH, "no frames are answered without the host")
        until(lambda: a.metric("upscale_triton_up") == 1, "the other host's Triton is not missed")
        mended = time.monotonic()
        switch.mend(b.host)
        before = b.metric('upscale_frames_total{code="OK"')
        triton_again = until(lambda: a.metric("upscale_triton_up") == 2, "the other host's Triton is not used again")
        gateway_again = until(
            lambda: b.metric('upscale_frames_total{code="OK"') > before, "the other host's gateway is not used again"
        )
        until(lambda: client.right_since(gateway_again) >= ENOUGH, "no frames are answered in the end")
        client.stop()

        failed = client.failed_since(0)
        times = [frame["ended"] for frame in client.frames if frame["right"] and frame["ended"] >= cut]
        figures = {
            "frames": len(client.frames),
            "failed": Counter(f"{frame['code']} {frame['kind']}" for frame in failed),
            "slowest_failure_s": max((frame["ended"] - frame["sent"] for frame in failed), default=0.0),
            "slowest_answer_s": max(frame["ended"] - frame["sent"] for frame in client.frames if frame["right"]),
            "last_failure_s": max((frame["ended"] - cut for frame in failed), default=0.0),
            "gap_s": max(later - sooner for sooner, later in zip([cut, *times], times, strict=False)),
            "triton_again_s": triton_again - mended,
            "gateway_again_s": gateway_again - mended,
        }
        print(figures)
        for name, value in figures.items():
            record_property(name, value)
        assert not [frame for frame in client.frames if frame["right"] is False], "a wrong answer"
        # UNKNOWN is gRPC's word where an answer broke off in its middle.
        assert {frame["code"] for frame in failed} <= {"UNAVAILABLE", "UNKNOWN"}, figures
        assert {frame["kind"] for frame in failed} <= {"UnavailableError"}, figures
        assert len(failed) <= 4 * AT_ONCE, figures
        assert cast("float", figures["slowest_failure_s"]) < INFER_TIMEOUT_S, figures
        assert cast("float", figures["slowest_answer_s"]) < INFER_TIMEOUT_S, "a broken connection was waited for"
        for site in (a, b):
            until(lambda site=site: site.metric('upscale_slots{state="free"}') == 16, "slots were lost")
            assert site.gateway is not None
            site.host.do(site.gateway.stop)
            assert not {name for name in site.host.shared_memory() if name.startswith("upscale-")}
            assert not site.mapped(), "Triton has a stopped gateway's memory mapped still"


def _expected(site: Site, file: Path) -> Path:
    """Frames and their answers, from a process on the gateway's own host."""
    script = (
        "import sys, numpy as np; from upscale_client import UpscaleClient;"
        "inputs = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), dtype=np.uint8);"
        "client = UpscaleClient(sys.argv[1]);"
        "np.savez(sys.argv[2], inputs=inputs, outputs=[client.upscale(each, scale=2).array for each in inputs])"
    )
    command = [sys.executable, "-c", script, f"127.0.0.1:{GRPC}", str(file)]
    site.host.do(lambda: subprocess.run(command, cwd=ROOT, check=True, timeout=60))
    return file


def _balancer(host: Host, certificate: Path, a: Site, b: Site, log: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "UPSCALE_CERTIFICATE": str(certificate),
        "UPSCALE_LISTEN": f":{EDGE}",
        "UPSCALE_GATEWAY_A": a.host.address,
        "UPSCALE_GATEWAY_B": b.host.address,
    }
    command = [*LIFELINE, str(HAPROXY), "-f", str(ROOT / "deploy" / "haproxy" / "haproxy.cfg")]
    with log.open("wb") as output:
        process = host.do(lambda: subprocess.Popen(command, env=environment, stdout=output, stderr=output))
    # A client that comes before it listens is refused, and that would be no fault of the service.
    until(lambda: host.do(lambda: _listens(EDGE)), "the balancer does not listen")
    return process


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
