"""How many frames any policy could answer in time, at most."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from benchmark.scheduling.traces import Times, Trace


def most_in_time(trace: Trace) -> float:
    """An upper bound on the frames answered in time, by any policy, even one that knows the future.

    The relaxation: one server that works at the sum of all executors' best rates (over batch sizes and allowed rungs,
    at the fastest factor of the noise), may stop a frame and go on with it later, and is credited with parts of frames.

    Why it is a bound: take any schedule, and a batch of n frames in it that took t seconds on an executor. No executor
    does more than its best rate r, so n <= r t. Let the server spend the executor's share of its time, while the batch
    runs, on the batch's frames in equal parts: each gets r t / n >= 1 frame's work, between its arrival and its answer.
    So every set of frames that some schedule answers in time can be served in time by the server, and the most work it
    can do in time is at least as much. That most is what earliest deadline first does: units of work and moments form a
    convex bipartite graph, where Glover's rule (1967) of giving each moment to the open unit that closes first finds a
    maximum matching. Parts must be credited: earliest deadline first that counts whole frames only is not optimal when
    frames arrive over time, so it would be no bound.

    Frames whose budget is below the shortest batch of one can be answered by nobody and are left out; offline frames
    can always be answered, later. Outages lower the server's rate; time is measured in the work that it could have
    done, which makes its rate one.
    """
    fastest = float(trace.factors.min())
    shortest = fastest * min(
        endpoint.costs[variant].seconds(1)
        for endpoint in trace.endpoints
        for variant in trace.ladder
        if variant in endpoint.costs
    )
    judged = trace.judged
    possible = (judged - trace.arrivals >= shortest) & ~trace.offline
    release = work_until(trace, trace.arrivals[possible]) / fastest
    due = work_until(trace, judged[possible]) / fastest
    return _served(release.tolist(), due.tolist()) + int(trace.offline.sum())


def work_until(trace: Trace, moments: Times) -> Times:
    """Frames that all executors could have done by each moment at their best rates, batch times without noise."""
    rates = [
        endpoint.executors * max(endpoint.costs[variant].rate for variant in trace.ladder if variant in endpoint.costs)
        for endpoint in trace.endpoints
    ]
    changes: list[tuple[float, float]] = []
    for outage in trace.outages:
        changes += [(outage.begin, -rates[outage.endpoint]), (outage.end, rates[outage.endpoint])]
    rate, bends, work = sum(rates), [0.0], [0.0]
    for moment, change in [*sorted(changes), (float(moments.max(initial=0.0)) + 1.0, 0.0)]:
        work.append(work[-1] + rate * max(0.0, moment - bends[-1]))
        bends.append(max(bends[-1], moment))
        rate += change
    return np.interp(moments, bends, work)


def _served(release: list[float], due: list[float]) -> float:
    """Work that a server of rate one does in time by earliest deadline first; every frame asks for one unit."""
    waiting: list[tuple[float, float]] = []
    now = served = 0.0
    for begin, end in [*zip(release, due, strict=True), (float("inf"), float("inf"))]:
        while waiting and now < begin:
            closes, left = waiting[0]
            if closes <= now:
                heappop(waiting)
                continue
            done = min(left, closes - now, begin - now)
            now += done
            served += done
            if done == left:
                heappop(waiting)
            else:
                waiting[0] = (closes, left - done)
        now = max(now, begin)
        heappush(waiting, (end, 1.0))
    return served
