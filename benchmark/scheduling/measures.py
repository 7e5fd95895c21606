"""Numbers of one policy on one trace."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark.scheduling.bound import work_until
from benchmark.scheduling.simulator import ANSWERED, DROPPED, REFUSED, Result
from benchmark.scheduling.traces import QUALITY, Times, Trace


def jain(shares: Times) -> float:
    """Jain's index (Jain, Chiu, Hawe 1984), (sum x)^2 / (n sum x^2): 1 if all are equal, 1/n if one has everything.

    For equal demands x is what each was given. For unequal ones x is that over the client's fair share, as the paper
    has it; see `fair_shares`. 1 where nobody was given anything.
    """
    squares = float((shares**2).sum())
    return float(shares.sum()) ** 2 / (len(shares) * squares) if squares else 1.0


def fair_shares(demands: Times, capacity: float) -> Times:
    """The max-min fair shares: nobody gets more than asked, and what is left goes to the others in equal parts."""
    shares = np.zeros_like(demands)
    left, level = capacity, 0.0
    for position, client in enumerate(np.argsort(demands)):
        level = min(float(demands[client]), left / (len(demands) - position))
        shares[client] = level
        left -= level
    return shares


def measure(trace: Trace, result: Result) -> dict[str, Any]:
    """A row of the report. Every frame is counted in one of the fates; shares are None where they are of nothing."""
    answered = result.state == ANSWERED
    # Comparisons with NaN, where there was no answer, are false.
    in_time = result.answered <= trace.judged
    fates = {
        "in_time": int(in_time.sum()),
        "late": int((answered & ~in_time).sum()),
        "dropped": int((result.state == DROPPED).sum()),
        "refused": int((result.state == REFUSED).sum()),
    }
    offered = len(trace.arrivals)
    accepted = offered - fates["refused"]
    quality = np.array([QUALITY[variant] for variant in trace.ladder])[result.rung[in_time]]
    demands = np.bincount(trace.clients).astype(float)
    given = np.bincount(trace.clients[in_time], minlength=len(demands)).astype(float)
    asked = demands > 0
    live = in_time & ~trace.offline
    waited = (result.answered - trace.arrivals)[live]
    by_end = result.answered[trace.offline] <= trace.end
    total = float(work_until(trace, np.array([trace.end]))[0])
    return {
        "fates": fates,
        "goodput": fates["in_time"] / offered,
        "late": (fates["late"] + fates["dropped"]) / accepted if accepted else None,
        "refused": fates["refused"] / offered,
        "quality": float(quality.mean()) if len(quality) else None,
        "fairness": jain(given[asked] / fair_shares(demands[asked], total)),
        "live_p50_ms": round(1000 * float(np.median(waited)), 3) if len(waited) else None,
        "offline_by_end": float(by_end.mean()) if len(by_end) else None,
        "mean_batch": int(answered.sum()) / result.batches if result.batches else None,
        "frames_per_wall_s": round(offered / result.wall_s),
    }
