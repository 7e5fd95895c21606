"""Frames offered to the gateway: as many as it takes, to find its capacity, or at a rate, whatever it does."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from upscale_client import AsyncUpscaleClient, BudgetSpentError, BudgetTooSmallError, OverloadedError, UpscaleError

_WARM_S = 1.0
"""Of each load, so long it is not measured: the planner learns the demand."""


@dataclass(frozen=True)
class Wanted:
    """How the frames are asked for."""

    frame: NDArray[np.uint8]
    scale: int
    budget_s: float
    step_down: bool = False


@dataclass
class Outcome:
    """What became of frames that were offered; seconds by the client's clock."""

    offered: int = 0
    answered_s: list[float] = field(default_factory=list[float])
    """From the moment a frame was due to its answer."""
    service_s: list[float] = field(default_factory=list[float])
    """Of the same frames, as the service told it: from the arrival to the answer's sending."""
    refused_s: list[float] = field(default_factory=list[float])
    """From the moment a frame was sent to its refusal."""
    refusals: Counter[str] = field(default_factory=Counter[str])
    """As the service counted them, by the seconds ("+Inf": all) within which they were told."""
    dropped: int = 0
    """Accepted, and given up before they were inferred, for they would have been late."""
    failed: int = 0
    elapsed_s: float = 0.0
    models: dict[str, int] = field(default_factory=dict[str, int])
    """Answers by model."""

    def add(self, other: Outcome) -> None:
        """Another pass of the same."""
        self.offered += other.offered
        self.answered_s += other.answered_s
        self.service_s += other.service_s
        self.refused_s += other.refused_s
        self.refusals += other.refusals
        self.dropped += other.dropped
        self.failed += other.failed
        self.elapsed_s += other.elapsed_s
        for model, count in other.models.items():
            self.models[model] = self.models.get(model, 0) + count


def refusals(metrics: str) -> Counter[str]:
    """What the service has counted so far; `metrics` is the URL of its page."""
    with urllib.request.urlopen(metrics) as answer:
        page = answer.read().decode()
    return Counter(
        {
            most: int(float(count))
            for most, count in re.findall(r'^upscale_refusal_seconds_bucket{le="([^"]+)"} (\S+)$', page, re.MULTILINE)
        }
    )


async def capacity(clients: Sequence[AsyncUpscaleClient], wanted: Wanted, at_once: int, seconds: float) -> float:
    """Frames a second if there are always `at_once` in the service, and no budget."""
    ends = time.perf_counter() + _WARM_S + seconds
    answered = 0

    async def ask(client: AsyncUpscaleClient) -> None:
        nonlocal answered
        while (now := time.perf_counter()) < ends:
            await client.upscale(wanted.frame, scale=wanted.scale)
            answered += ends - seconds <= now < ends

    await asyncio.gather(*(ask(clients[number % len(clients)]) for number in range(at_once)))
    return answered / seconds


async def offer(
    clients: Sequence[AsyncUpscaleClient], wanted: Wanted, rate: float, seconds: float, seed: int
) -> Outcome:
    """Offer frames at a rate, by chance (Poisson), whether or not there is an answer to the last one."""
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, size=round(2 * rate * (_WARM_S + seconds)) + 16)
    due = [float(at) for at in np.cumsum(gaps) if at < _WARM_S + seconds]
    outcome = Outcome(elapsed_s=seconds)
    begin = time.perf_counter()
    asked: list[asyncio.Task[None]] = []
    for number, at in enumerate(due):
        wait_s = begin + at - time.perf_counter()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        counted = outcome if at >= _WARM_S else Outcome()
        asked.append(asyncio.create_task(_ask(clients[number % len(clients)], wanted, begin + at, counted)))
    await asyncio.gather(*asked)
    return outcome


async def _ask(client: AsyncUpscaleClient, wanted: Wanted, due: float, outcome: Outcome) -> None:
    outcome.offered += 1
    sent = time.perf_counter()
    try:
        answer = await client.upscale(
            wanted.frame, scale=wanted.scale, budget_s=wanted.budget_s, step_down=wanted.step_down
        )
    except (OverloadedError, BudgetTooSmallError):
        outcome.refused_s.append(time.perf_counter() - sent)
    except BudgetSpentError:
        outcome.dropped += 1
    except UpscaleError:
        outcome.failed += 1
    else:
        outcome.answered_s.append(time.perf_counter() - due)
        outcome.service_s.append(sum(answer.stages_s.values()))
        outcome.models[answer.model] = outcome.models.get(answer.model, 0) + 1
