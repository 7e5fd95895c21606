"""Times, processor time and memory of the ways. They take turns, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import psutil

from benchmark.serving.ways import Way


@dataclass
class Row:
    """What was measured of one way with one model."""

    way: Way
    seconds: list[float] = field(default_factory=list[float])
    """Of each frame that had the machine to itself, from the client's taking it up to its answer."""
    verified: int = 0
    """Answers seen to belong to their frames; there are no others."""
    answered: dict[int, int] = field(default_factory=dict[int, int])
    """Frames in the closed loop, by clients at once."""
    elapsed: dict[int, float] = field(default_factory=dict[int, float])
    """Seconds of the closed loop, by clients at once."""
    front_cpu_s: float = 0.0
    """Of the server that the client speaks to, in the closed loop of one client."""
    all_cpu_s: float = 0.0
    """Of every process on the way but the client."""
    peak_rss_bytes: int = 0
    """Of the server that the client speaks to and its children, in the closed loops."""

    def frames_per_s(self, clients: int) -> float:
        """Answers a second while so many clients ask."""
        return self.answered[clients] / self.elapsed[clients]


@dataclass(frozen=True)
class Servers:
    """The processes behind a way."""

    front: int
    """The one the client speaks to."""
    behind: tuple[int, ...] = ()
    """Those it speaks to."""


class Clients(Protocol):
    """Clients of one way, wherever they are."""

    def turn(self, number: int) -> list[float]:
        """Have one client send a turn's frames; returns the seconds of each."""
        ...

    def closed(self, clients: int, seconds: float) -> tuple[list[float], float]:
        """Have so many clients each send their next frame as soon as they have an answer.

        Returns:
            The seconds of each frame, and of all of it.
        """
        ...

    def open(self, rate: float, seconds: float) -> dict[str, float | int | None]:
        """Have frames sent at a rate, answers or not; returns what became of them."""
        ...


def take_turns(rows: Sequence[Row], clients: Mapping[str, Clients], rounds: int) -> Iterator[int]:
    """Time the ways, one client, one turn after the other; yields after every round.

    Args:
        rows: the ways; their seconds are filled.
        clients: of each way, by its name.
        rounds: turns for each way.
    """
    for number in range(rounds):
        for row in rows:
            seconds = clients[row.way.name].turn(number)
            row.seconds += seconds
            row.verified += len(seconds)
        yield number


def closed_loop(row: Row, clients: Clients, several: int, seconds: float, servers: Servers | None) -> None:
    """So many clients, each with its next frame as soon as it has an answer, for `seconds`."""
    families = Families(servers)
    families.forget_peaks()
    before = families.cpu_s()
    times, elapsed = clients.closed(several, seconds)
    answered = len(times)
    after = families.cpu_s()
    row.verified += answered
    row.answered[several] = row.answered.get(several, 0) + answered
    row.elapsed[several] = row.elapsed.get(several, 0.0) + elapsed
    row.peak_rss_bytes = max(row.peak_rss_bytes, families.peak_rss_bytes())
    if several == 1:
        row.front_cpu_s += after["front"] - before["front"]
        row.all_cpu_s += after["all"] - before["all"]


class Families:
    """The servers behind a way with their children, as they are now."""

    def __init__(self, servers: Servers | None) -> None:
        self._front = [] if servers is None else _family(servers.front)
        self._behind = [] if servers is None else [pid for root in servers.behind for pid in _family(root)]

    def cpu_s(self) -> dict[Literal["front", "all"], float]:
        """Seconds of processor time, user and system, since they were started."""
        front = sum(map(cpu_seconds, self._front))
        return {"front": front, "all": front + sum(map(cpu_seconds, self._behind))}

    def forget_peaks(self) -> None:
        """Let Linux begin anew to watch for the most memory that the front holds; proc(5)."""
        for pid in self._front:
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss_bytes(self) -> int:
        """The most memory that the front's processes held, added up: what they share counts for each of them."""
        return sum(map(_peak_rss_bytes, self._front))


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, user and system, its ended threads included, to the nanosecond.

    /proc/PID/stat has the same in hundredths of a second, which is more than some ways need for a frame.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)  # the clock that clock_getcpuclockid(3) gives
    except OSError:
        return 0.0


def _peak_rss_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float | None]:
    """The median and the 95th and 99th percentile, in milliseconds; None where there are no times."""
    names = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
    return {
        name: round(1000 * float(np.percentile(seconds, percent)), 3) if seconds else None
        for name, percent in names.items()
    }
