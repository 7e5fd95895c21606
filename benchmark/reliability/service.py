"""The service under test, and what it still holds when nobody asks anything of it."""

from __future__ import annotations

import contextlib
import fcntl
import time
import urllib.request
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from tritonclient.grpc import InferenceServerClient

from benchmark.reliability.load import LADDER
from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from deploy.local import GatewayProcess
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR

_SETTINGS: dict[str, object] = {
    "host": "127.0.0.1",
    "log_level": "WARNING",
    "default_profile": "clean",
    "max_output_pixels": 1_000_000,
    "warm_up_s": 2,
    # Short, so that what is waited for is waited for often.
    "infer_timeout_s": 2,
    "receive_timeout_s": 2,
    "stream_write_timeout_s": 2,
    "session_idle_s": 5,
}
_IDLE_WITHIN_S = 20.0
_MAY_GROW = {"descriptors": 4, "threads": 4}
"""Less than one for each of what every fault does again and again."""
_SHARED_MEMORY = Path("/dev/shm")


def make_repository(folder: Path) -> Path:
    """The networks that the load asks for."""
    for model, scale in [("runet", 2), *((model, 3) for model in LADDER)]:
        export_variant(get(model), scale, "clean", repository=folder, weights=WEIGHTS_DIR)
    export_variant(get("runet"), 2, "clean", repository=folder, weights=WEIGHTS_DIR, pixel_format="nv12")
    return folder


@dataclass(frozen=True)
class Held:
    """What the service holds; all but the processes' own are zero when it is idle."""

    slots: int
    sessions: int
    client_regions: int
    tasks: int
    descriptors: int
    """Without those of lanes, which are kept for the next frame of their format, within shared_memory_bytes."""
    threads: int
    orphans: int
    """Files in /dev/shm whose gateway or client is gone."""
    triton_orphans: int
    """Regions that Triton has mapped, and whose file is gone."""

    def more_than(self, before: Held) -> dict[str, int]:
        """What is held in addition to what was before; gRPC's pools of threads and sockets may grow by a few."""
        grown = {each.name: getattr(self, each.name) - getattr(before, each.name) for each in fields(self)}
        return {name: more for name, more in grown.items() if more > _MAY_GROW.get(name, 0)}


class Service:
    """A gateway before a Triton."""

    def __init__(self, triton: EmbeddedTriton, gateway: GatewayProcess) -> None:
        self.triton = triton
        self.gateway = gateway

    @property
    def address(self) -> str:
        """Where clients connect."""
        return self.gateway.address

    def held(self) -> Held:
        """What it holds now."""
        page = self._metrics()
        processes = self.processes()
        return Held(
            slots=int(_sum(page, 'upscale_slots{state="used"') + _sum(page, 'upscale_slots{state="retired"')),
            sessions=int(_sum(page, "upscale_sessions")),
            client_regions=int(_sum(page, "upscale_client_regions")),
            tasks=int(_sum(page, "upscale_tasks")),
            descriptors=sum(_descriptors(process.pid) for process in processes),
            threads=sum(process.num_threads() for process in processes),
            orphans=sum(map(_ownerless, _SHARED_MEMORY.glob("upscale-*"))),
            triton_orphans=self._triton_orphans(),
        )

    def idle(self, before: Held | None = None) -> Held:
        """Wait until it holds no more than `before`, or nothing of clients'; what it holds then, or in the end."""
        deadline = time.monotonic() + _IDLE_WITHIN_S
        while True:
            held = self.held()
            busy = held.slots or held.sessions or held.client_regions
            if (not busy and (before is None or not held.more_than(before))) or time.monotonic() > deadline:
                return held
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """The gateway's, its workers included."""
        root = psutil.Process(self.gateway.pid)
        return [root, *root.children(recursive=True)]

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway.metrics_port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def _triton_orphans(self) -> int:
        client: Any = InferenceServerClient(self.triton.url)
        try:
            regions = client.get_system_shared_memory_status().regions
            return sum(not (_SHARED_MEMORY / region.key.lstrip("/")).exists() for region in regions.values())
        finally:
            client.close()


def _sum(page: str, name: str) -> float:
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name) and "_created" not in line
    )


def _descriptors(pid: int) -> int:
    count = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            where = str(each.readlink())
            count += not where.startswith(f"{_SHARED_MEMORY}/upscale-frames-") or where.endswith("(deleted)")
    return count


def _ownerless(file: Path) -> bool:
    """Whether nobody holds its lock, as who made it does as long as it lives."""
    with contextlib.suppress(OSError), file.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextlib.contextmanager
def started(
    triton: EmbeddedTriton, folder: Path, *, wrapper: Sequence[str] = (), **settings: object
) -> Generator[Service]:
    """A gateway before a Triton that runs already."""
    ports = {"port": free_port(), "metrics_port": free_port()}
    gateway = GatewayProcess(triton.url, {**_SETTINGS, **ports, **settings}, folder / "gateway.log", wrapper)
    gateway.start(timeout_s=60)
    try:
        yield Service(triton, gateway)
    finally:
        gateway.stop()
