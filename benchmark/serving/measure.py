"""Times, processor time and memory of the ways. They take turns, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import psutil

from benchmark.errors import BenchmarkError
from benchmark.serving.frames import Sample
from benchmark.serving.ways import Ask, Pixels, Refused, Way
from upscale_client import UpscaleError

_SENDERS = 32


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


def take_turns(
    rows: Sequence[Row], asks: Mapping[str, Ask], samples: Mapping[str, Sequence[Sample]], rounds: int
) -> Iterator[int]:
    """Time the ways, one client, one turn after the other; yields after every round.

    Args:
        rows: the ways; their seconds are filled.
        asks: a connected client for each way, by the way's name.
        samples: the frames, by pixel format.
        rounds: turns for each way.
    """
    supplies = {row.way.name: itertools.cycle(samples[row.way.pixel_format]) for row in rows}
    for number in range(rounds):
        for row in rows:
            name = row.way.name
            frames = itertools.islice(supplies[name], row.way.turn)
            row.seconds += ask_all(row, asks[name], frames)
        yield number


def ask_all(row: Row, ask: Ask, samples: Iterable[Sample]) -> list[float]:
    """Have frames enlarged and their answers checked; returns the seconds of each.

    Raises:
        BenchmarkError: an answer is wrong, or there is none.
    """
    sent: deque[tuple[float, Sample]] = deque()

    def feed() -> Iterator[Pixels]:
        for sample in samples:
            sent.append((time.perf_counter(), sample))
            yield sample.pixels

    seconds: list[float] = []
    try:
        for answer in ask(feed()):
            now = time.perf_counter()
            began, sample = sent.popleft()
            seconds.append(now - began)
            sample.check(answer, row.way.label)
    except UpscaleError as error:
        raise BenchmarkError(f"{row.way.label}: {error}") from None
    if sent:
        raise BenchmarkError(f"{row.way.label} left {len(sent)} frames without an answer")
    row.verified += len(seconds)
    return seconds


def closed_loop(
    row: Row, asks: Sequence[Ask], samples: Sequence[Sample], seconds: float, servers: Servers | None
) -> None:
    """So many clients as there are `asks`, each with its next frame as soon as it has an answer, for `seconds`."""
    clients = len(asks)
    # A bug in one client must not leave the others waiting for it.
    start = threading.Barrier(clients, timeout=60)

    def client(number: int) -> tuple[float, float, int]:
        first = number % len(samples)
        supply = itertools.cycle([*samples[first:], *samples[:first]])
        start.wait()
        began = time.perf_counter()
        taken = itertools.takewhile(lambda _: time.perf_counter() < began + seconds, supply)
        count = len(ask_all(row, asks[number], taken))
        return began, time.perf_counter(), count

    families = Families(servers)
    families.forget_peaks()
    before = families.cpu_s()
    with ThreadPoolExecutor(clients) as pool:
        done = list(pool.map(client, range(clients)))
    after = families.cpu_s()
    answered = sum(count for _, _, count in done)
    row.answered[clients] = row.answered.get(clients, 0) + answered
    elapsed = max(end for _, end, _ in done) - min(began for began, _, _ in done)
    row.elapsed[clients] = row.elapsed.get(clients, 0.0) + elapsed
    row.peak_rss_bytes = max(row.peak_rss_bytes, families.peak_rss_bytes())
    if clients == 1:
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


def open_loop(
    row: Row, asks: Sequence[Ask], samples: Sequence[Sample], rate: float, seconds: float
) -> dict[str, float | int | None]:
    """Offer frames at a rate, by chance (Poisson) and whether or not there is an answer to the last one.

    A frame's time runs from the moment it was due, so that a client that comes late hides nothing.
    """
    gaps = np.random.default_rng(1).exponential(1 / rate, size=max(1, round(3 * rate * seconds)))
    due = [at for at in np.cumsum(gaps) if at < seconds]
    begin = time.perf_counter()

    def send(number: int) -> tuple[str, float, float]:
        ask, sample = asks[number % len(asks)], samples[number % len(samples)]
        try:
            answer = next(ask([sample.pixels]))
        except Refused:
            return "refused", 0.0, time.perf_counter()
        except UpscaleError:
            return "failed", 0.0, time.perf_counter()
        now = time.perf_counter()
        sample.check(answer, row.way.label)
        return "answered", now - begin - due[number], now

    with ThreadPoolExecutor(_SENDERS) as pool:
        futures = []
        for number, at in enumerate(due):
            time.sleep(max(0.0, begin + at - time.perf_counter()))
            futures.append(pool.submit(send, number))
        done = [future.result() for future in futures]
    times = [took for outcome, took, _ in done if outcome == "answered"]
    row.verified += len(times)
    end = max((at for _, _, at in done), default=begin)
    return {
        "offered_per_s": round(rate, 2),
        "offered": len(due),
        "answered": len(times),
        "refused": sum(outcome == "refused" for outcome, _, _ in done),
        "failed": sum(outcome == "failed" for outcome, _, _ in done),
        "goodput_per_s": round(len(times) / max(end - begin, seconds), 2),
        **percentiles_ms(times),
    }
