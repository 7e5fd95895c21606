"""The real parts, started once: an exported repository, the embedded Triton, a gateway."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import GatewayProcess
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from service.frames import SHARED_MEMORY
from training.degradation import degrade
from upscale_client import UpscaleClient

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "nuthatch_4k.jpg"
StartGateway = Callable[..., GatewayProcess]


def ownerless(region: Path) -> bool:
    """Whether the process that made a region is gone; those of a gateway that runs beside the tests are locked."""
    with contextlib.suppress(OSError), region.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def metric(gateway: GatewayProcess, name: str) -> float:
    """The sum over a metric's samples whose line begins with `name`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.metrics_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def until_nothing_is_held(gateway: GatewayProcess, slots: int = 16) -> None:
    """Wait until every slot is free and no session and no client's region is open."""
    deadline = time.monotonic() + 30
    while True:
        free = metric(gateway, 'upscale_slots{state="free"}')
        open_still = metric(gateway, "upscale_sessions") + metric(gateway, "upscale_client_regions")
        if free == slots and not open_still:
            return
        assert time.monotonic() < deadline, f"{slots - free:g} slots and {open_still:g} sessions or regions were lost"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Triton repository with RUNet x2 and x3, from the weights that are shipped."""
    folder = tmp_path_factory.mktemp("repository")
    for scale in (2, 3):
        export_variant(get("runet"), scale, "clean", repository=folder, weights=WEIGHTS_DIR)
    return folder


@pytest.fixture(scope="session")
def triton(repository: Path) -> Iterator[EmbeddedTriton]:
    """The real tritonserver; tests must not harm it."""
    with EmbeddedTriton(repository) as server:
        yield server


@pytest.fixture
def own_triton(repository: Path) -> Iterator[EmbeddedTriton]:
    """A Triton that may be harmed."""
    server = EmbeddedTriton(repository)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def start_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """Starts gateways on free ports; what still runs in the end is stopped, and must have left no shared memory."""
    folder = tmp_path_factory.mktemp("gateways")
    numbers = itertools.count()
    before = set(SHARED_MEMORY.iterdir())
    running: list[GatewayProcess] = []

    def start(triton_url: str, *, wrapper: Sequence[str] = (), **settings: object) -> GatewayProcess:
        ports = {"port": free_port(), "metrics_port": free_port()}
        settings = {**ports, "host": "127.0.0.1", "default_profile": "clean", "warm_up_s": 0, **settings}
        log = folder / f"gateway-{next(numbers)}.log"
        gateway = GatewayProcess(triton_url, settings, log, wrapper)
        running.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in running:
        gateway.stop()
    new = set(SHARED_MEMORY.iterdir()) - before
    left = {
        path.name for path in new if path.name.startswith(("upscale-frames-", "upscale-client-")) and ownerless(path)
    }
    assert not left, f"shared memory left behind: {left}"


@pytest.fixture(scope="session")
def gateway(triton: EmbeddedTriton, start_gateway: StartGateway) -> GatewayProcess:
    """A gateway before the shared Triton; tests must not harm it."""
    return start_gateway(triton.url)


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[UpscaleClient]:
    """A client of the shared gateway."""
    with UpscaleClient(gateway.address) as client:
        yield client


@pytest.fixture(scope="session")
def hr() -> NDArray[np.uint8]:
    """The sample photograph, 3840x2160."""
    return np.asarray(Image.open(SAMPLE).convert("RGB"))


@pytest.fixture(scope="session")
def lr_1080p(hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photograph as a 1080p frame."""
    return degrade(hr, 2)


@pytest.fixture(scope="session")
def lr_720p(hr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photograph as a 720p frame."""
    return degrade(hr, 3)
