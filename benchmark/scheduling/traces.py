"""What arrives, and where it can be inferred: one seeded trace for every situation. All times are in seconds.

Loads are multiples of the capacity: the sum, over all executors, of the most frames a second of the first rung's
network over all batch sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Numbers = NDArray[np.int64]

LADDER = ("runet", "bicubic_plus_plus", "bicubic")
QUALITY: Mapping[str, float] = {"runet": 1.0, "bicubic_plus_plus": 0.75, "bicubic": 0.0}
"""Of an answer, relative to the first rung's gain over bicubic."""
BUDGETS = (1 / 60, 1 / 30)
"""Of the clients, in turn."""
TOLERANCE = 1e-9
"""An answer this much after its deadline is in time: sums of floats are not exact."""

_CLIENTS = 64
_STREAM_FPS = 60
_JITTER = 1e-3
_NOISE = 0.1
_FACTORS = 1 << 14
_TAIL = 2.5
"""Where the noise is cut off, in standard deviations."""


@dataclass(frozen=True)
class Cost:
    """What a batch of one network takes on one executor: `base + per_frame * frames` seconds."""

    base: float
    per_frame: float
    most: int = 8
    """Frames of a batch."""

    def seconds(self, frames: int) -> float:
        """Of one batch, without noise."""
        return self.base + self.per_frame * frames

    @property
    def rate(self) -> float:
        """The most frames a second that one executor can do."""
        return max(frames / self.seconds(frames) for frames in range(1, self.most + 1))


COSTS: Mapping[str, Cost] = {
    "runet": Cost(0.4e-3, 0.9e-3),
    "bicubic_plus_plus": Cost(0.4e-3, 0.3e-3),
    "bicubic": Cost(0.3e-3, 0.1e-3),
}
_WIDE: Mapping[str, Cost] = {"runet": Cost(4e-3, 0.5e-3, most=32)}


@dataclass(frozen=True)
class Endpoint:
    """An inference server with executors that run one batch at a time each."""

    name: str
    executors: int = 2
    costs: Mapping[str, Cost] = field(default_factory=lambda: COSTS)


@dataclass(frozen=True)
class Outage:
    """An endpoint, by its index, is away for a while; batches in flight there fail."""

    endpoint: int
    begin: float
    end: float


@dataclass(frozen=True)
class Trace:
    """Frames in the order of their arrival, and the endpoints they find."""

    name: str
    meaning: str
    endpoints: Sequence[Endpoint]
    arrivals: Times
    budgets: Times
    """From arrival to deadline; infinite for offline frames."""
    clients: Numbers
    layouts: Numbers
    """Frames of one layout may share a batch."""
    ladder: Sequence[str] = ("runet",)
    """Networks that may be used, best first."""
    outages: Sequence[Outage] = ()
    factors: Times = field(default_factory=lambda: np.ones(1))
    """Of the true batch times, taken in turn by the batches in the order they begin: the same for every policy."""

    @property
    def deadlines(self) -> Times:
        """As the policies know them."""
        return self.arrivals + self.budgets

    @property
    def end(self) -> float:
        """When the last frame arrives."""
        return float(self.arrivals[-1])

    @property
    def judged(self) -> Times:
        """What an answer must meet to be in time; an offline frame is whenever it is answered."""
        return self.deadlines + TOLERANCE

    @property
    def offline(self) -> NDArray[np.bool_]:
        """Frames without a deadline."""
        return np.isinf(self.budgets)


def capacity(endpoints: Sequence[Endpoint], variant: str = "runet") -> float:
    """Frames a second of one network, if every executor runs its best batches without a pause."""
    return sum(endpoint.executors * endpoint.costs[variant].rate for endpoint in endpoints)


def pool(endpoints: int = 2, executors: int = 2, costs: Mapping[str, Cost] = COSTS) -> list[Endpoint]:
    """Endpoints that are all alike."""
    return [Endpoint(f"gpu{number}", executors, costs) for number in range(endpoints)]


def _factors(rng: np.random.Generator, *, noisy: bool) -> Times:
    if not noisy:
        return np.ones(1)
    return np.clip(rng.normal(1, _NOISE, _FACTORS), 1 - _TAIL * _NOISE, 1 + _TAIL * _NOISE)


def _budgets(clients: Numbers) -> Times:
    return np.asarray(BUDGETS)[clients % len(BUDGETS)]


def poisson(
    frames: int, seed: int, load: float, *, noisy: bool = False, ladder: Sequence[str] = ("runet",), wide: bool = False
) -> Trace:
    """Frames by chance, of 64 clients; `wide` executors take batches of 32, which pay off and take 20 ms."""
    rng = np.random.default_rng(seed)
    endpoints = pool(costs=_WIDE if wide else COSTS)
    arrivals = np.cumsum(rng.exponential(1 / (load * capacity(endpoints)), frames))
    clients = rng.integers(_CLIENTS, size=frames)
    what = f"Poisson at {load:g}x" + (", noisy batch times" if noisy else "")
    name = f"poisson_{load:g}x" + ("_noisy" if noisy else "")
    if len(ladder) > 1:
        name, what = f"ladder_{load:g}x", f"{what}, {len(ladder)} rungs allowed"
    if wide:
        name, what = f"wide_{load:g}x", f"{what}, batches of up to 32"
    layouts = np.zeros(frames, np.int64)
    factors = _factors(rng, noisy=noisy)
    return Trace(name, what, endpoints, arrivals, _budgets(clients), clients, layouts, ladder, factors=factors)


def bursty(frames: int, seed: int, load: float, *, noisy: bool = False) -> Trace:
    """A Markov-modulated Poisson process: half the mean load for 200 ms, three times for 50 ms, both on average."""
    rng = np.random.default_rng(seed)
    endpoints = pool()
    rate = load * capacity(endpoints)
    states = 64 + int(frames / rate / 0.05)
    dwell = rng.exponential(np.where(np.arange(states) % 2, 0.05, 0.2))
    intensity = rate * np.where(np.arange(states) % 2, 3.0, 0.5)
    # Points of unit rate, bent to the intensity: its integral's inverse is piecewise linear.
    bends = np.concatenate([[0.0], np.cumsum(dwell)])
    expected = np.concatenate([[0.0], np.cumsum(dwell * intensity)])
    points = np.cumsum(rng.exponential(1.0, frames))
    if points[-1] > expected[-1]:
        beyond = points[-1] - expected[-1] + 1
        bends, expected = np.append(bends, bends[-1] + beyond / rate), np.append(expected, expected[-1] + beyond)
    arrivals = np.interp(points, expected, bends)
    # A trace has few bursts, so chance moves its mean by a tenth and more: the time is stretched to mend that.
    arrivals *= frames / rate / arrivals[-1]
    clients = rng.integers(_CLIENTS, size=frames)
    return Trace(
        f"bursty_{load:g}x" + ("_noisy" if noisy else ""),
        f"bursts of 3 times the mean, {load:g}x on average" + (", noisy batch times" if noisy else ""),
        endpoints,
        arrivals,
        _budgets(clients),
        clients,
        np.zeros(frames, np.int64),
        factors=_factors(rng, noisy=noisy),
    )


def _stream_arrivals(rng: np.random.Generator, count: int, frames: int, fps: float) -> tuple[Times, Numbers]:
    """The first `frames` frames of `count` streams with random phases and jitter."""
    ticks = frames // count + 2
    phases = rng.uniform(0, 1 / fps, count)
    jitter = np.clip(rng.normal(0, _JITTER, (ticks, count)), -3 * _JITTER, 3 * _JITTER)
    times = ((np.arange(ticks) / fps)[:, None] + phases + jitter + 3 * _JITTER).reshape(-1)
    clients = np.tile(np.arange(count), ticks)
    order = np.argsort(times, kind="stable")[:frames]
    return times[order], clients[order]


def streams(frames: int, seed: int, load: float, *, noisy: bool = False) -> Trace:
    """Streams of 60 frames a second, each with its own phase, and 1 ms of jitter."""
    rng = np.random.default_rng(seed)
    endpoints = pool()
    count = round(load * capacity(endpoints) / _STREAM_FPS)
    arrivals, clients = _stream_arrivals(rng, count, frames, _STREAM_FPS)
    return Trace(
        f"streams_{load:g}x" + ("_noisy" if noisy else ""),
        f"{count} streams of 60 fps, {load:g}x" + (", noisy batch times" if noisy else ""),
        endpoints,
        arrivals,
        _budgets(clients),
        clients,
        np.zeros(frames, np.int64),
        factors=_factors(rng, noisy=noisy),
    )


def _merge(*parts: tuple[Times, Numbers]) -> tuple[Times, Numbers]:
    arrivals = np.concatenate([part[0] for part in parts])
    clients = np.concatenate([part[1] for part in parts])
    order = np.argsort(arrivals, kind="stable")
    return arrivals[order], clients[order]


def greedy(frames: int, seed: int, load: float = 0.9) -> Trace:
    """Streams of 60 fps that fit, and one client that sends 20 times an equal share of the capacity, by chance."""
    rng = np.random.default_rng(seed)
    endpoints = pool()
    rate = capacity(endpoints)
    count = round(load * rate / _STREAM_FPS)
    hog = 20 * rate / (count + 1)
    ours = round(frames * count * _STREAM_FPS / (count * _STREAM_FPS + hog))
    polite = _stream_arrivals(rng, count, ours, _STREAM_FPS)
    hogging = np.cumsum(rng.exponential(1 / hog, frames - ours))
    arrivals, clients = _merge(polite, (hogging, np.full(frames - ours, count)))
    layouts = np.zeros(frames, np.int64)
    what = f"{count} streams of 60 fps and a client with 20 times its share, {load + hog / rate:.2g}x together"
    return Trace("greedy", what, endpoints, arrivals, _budgets(clients), clients, layouts)


def failing(frames: int, seed: int, load: float = 0.7) -> Trace:
    """Poisson; one of three endpoints is away for the second quarter of the time."""
    rng = np.random.default_rng(seed)
    endpoints = pool(endpoints=3)
    arrivals = np.cumsum(rng.exponential(1 / (load * capacity(endpoints)), frames))
    clients = rng.integers(_CLIENTS, size=frames)
    end = float(arrivals[-1])
    what = f"Poisson at {load:g}x; one of three endpoints is away for a quarter of the time"
    outages = (Outage(1, end / 4, end / 2),)
    layouts = np.zeros(frames, np.int64)
    return Trace("failing", what, endpoints, arrivals, _budgets(clients), clients, layouts, outages=outages)


def fleet(frames: int, seed: int, load: float = 1.1) -> Trace:
    """Thousands of streams in four layouts over hundreds of executors, every other endpoint 1.5 times as slow."""
    rng = np.random.default_rng(seed)
    slow = {name: Cost(1.5 * cost.base, 1.5 * cost.per_frame, cost.most) for name, cost in COSTS.items()}
    endpoints = [Endpoint(f"gpu{number}", 4, slow if number % 2 else COSTS) for number in range(64)]
    count = round(load * capacity(endpoints) / _STREAM_FPS)
    arrivals, clients = _stream_arrivals(rng, count, frames, _STREAM_FPS)
    # Budgets alternate with the client, so layouts go by pairs of clients.
    what = f"{count} streams of 60 fps over {sum(endpoint.executors for endpoint in endpoints)} executors, {load:g}x"
    return Trace("fleet", what, endpoints, arrivals, _budgets(clients), clients, clients // 2 % 4)


def offline(frames: int, seed: int, live: float = 0.6, bulk: float = 0.8) -> Trace:
    """Live streams, and films whose frames come 100 at once and have no deadline."""
    rng = np.random.default_rng(seed)
    endpoints = pool()
    rate = capacity(endpoints)
    count = round(live * rate / _STREAM_FPS)
    ours = round(frames * live / (live + bulk))
    streams_part = _stream_arrivals(rng, count, ours, _STREAM_FPS)
    chunks = -(-(frames - ours) // 100)
    begins = np.cumsum(rng.exponential(100 / (bulk * rate), chunks))
    films = np.repeat(begins, 100)[: frames - ours], np.repeat(count + np.arange(chunks) % 4, 100)[: frames - ours]
    arrivals, clients = _merge(streams_part, films)
    budgets = np.where(clients >= count, np.inf, _budgets(clients))
    what = f"live streams at {live:g}x, offline frames at {bulk:g}x, 100 at once"
    return Trace("offline", what, endpoints, arrivals, budgets, clients, np.zeros(frames, np.int64))


def burst(seed: int) -> Trace:
    """150 frames within 30 ms, most of them in a third of that, for three executors and two rungs: for a picture."""
    rng = np.random.default_rng(seed)
    endpoints = pool(endpoints=3, executors=1)
    arrivals = np.sort(np.concatenate([rng.uniform(0, 30e-3, 30), rng.uniform(5e-3, 13e-3, 120)]))
    # Short budgets on the whole, or all could be answered late enough.
    budgets = np.where(np.arange(150) % 4, 0.6, 1.0) * BUDGETS[0]
    clients = rng.integers(12, size=150)
    return Trace("burst", "a burst", endpoints, arrivals, budgets, clients, np.zeros(150, np.int64), LADDER[:2])


TRACES: Sequence[Callable[[int, int], Trace]] = (
    lambda frames, seed: poisson(frames, seed, 0.9),
    lambda frames, seed: poisson(frames, seed, 0.9, noisy=True),
    lambda frames, seed: bursty(frames, seed, 0.9),
    lambda frames, seed: bursty(frames, seed, 0.9, noisy=True),
    lambda frames, seed: streams(frames, seed, 0.9),
    lambda frames, seed: streams(frames, seed, 0.9, noisy=True),
    lambda frames, seed: poisson(frames, seed, 2),
    lambda frames, seed: poisson(frames, seed, 2, ladder=LADDER),
    lambda frames, seed: poisson(frames, seed, 1.2, wide=True),
    greedy,
    failing,
    lambda frames, seed: fleet(4 * frames, seed),
    offline,
)
"""Each makes its trace of a number of frames and a seed."""

PREDICTABLE = ("poisson_0.9x", "bursty_0.9x", "streams_0.9x")
NOISY = tuple(f"{name}_noisy" for name in PREDICTABLE)
OVERLOAD = "poisson_2x"
"""Where the summary's numbers come from, by the traces' names."""
