"""Every metric of the gateway, declared in one place. Seconds and bytes; labels from closed sets only.

Gauges say how the values of several workers are made one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.timing import STAGES, Stage

_FRAME_SECONDS = (
    1 / 960, 1 / 480, 1 / 240, 1 / 120, 1 / 90, 1 / 60, 1 / 45, 1 / 30, 1 / 24, 0.0667, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2,
    10,
)  # fmt: skip
"""Dense around 1/120, 1/60 and 1/30 s, where the budgets are."""
_REFUSAL_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""A client that is refused at once can still do something else: 5 ms is what is promised."""
_BATCH_FRAMES = (1, 2, 4, 8, 16, 32)
BUDGETS = {"60fps": 1 / 60, "30fps": 1 / 30}
"""The budgets every frame is held against, in seconds; the label value "request" is the frame's own."""
_LAG_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
Outcome = Literal["met", "late", "refused", "spent", "failed", "too_small", "void"]
"""How a frame with a budget ended: answered in time; answered too late; refused because of the load; given up because
the time ran out; failed by Triton or the gateway; refused because an idle service would be too slow as well; and void,
if it was the client's doing: a wrong frame, or its leaving in time."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Metrics:
    """The metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[str, str], tuple[Counter, dict[str, Histogram]]] = {}
        self._frames = Counter(
            "upscale_frames",
            "Frames answered, by gRPC method, variant and gRPC code; the variant is empty if none was chosen.",
            ("method", "variant", "code"),
            registry=self.registry,
        )
        self._frame_seconds = Histogram(
            "upscale_frame_seconds",
            "Seconds a successful frame spent in a stage, and in all of them (total).",
            ("variant", "stage"),
            buckets=_FRAME_SECONDS,
            registry=self.registry,
        )
        self._budget_misses = Counter(
            "upscale_budget_misses",
            "Successful frames that took longer than a budget: 60fps, 30fps, or the request's own.",
            ("variant", "budget"),
            registry=self.registry,
        )
        self._budget_frames = Counter(
            "upscale_budget_frames",
            "Frames that asked for a budget, by the variant asked for, priority, and outcome: met, late (answered), "
            "refused (overload), spent (given up when the time ran out), failed (by Triton or the gateway), too_small "
            "(for an idle service, too), void (the client's doing).",
            ("variant", "priority", "outcome"),
            registry=self.registry,
        )
        self._budget_children: dict[tuple[str, str], dict[Outcome, Counter]] = {}
        self._batch_frames = Histogram(
            "upscale_batch_frames",
            "Frames per batch.",
            ("variant",),
            buckets=_BATCH_FRAMES,
            registry=self.registry,
        )
        self._queue_frames = Gauge(
            "upscale_queue_frames",
            "Frames waiting for an instance of the variant.",
            ("variant",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._inflight_frames = Gauge(
            "upscale_inflight_frames",
            "Frames in the gateway.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._shed = Counter(
            "upscale_shed",
            "Frames given up before they were inferred: overloaded, budget_too_small and client_limit (refused at "
            "once), budget (ran out in the queue), cancelled (the caller left), superseded (a session's later frame "
            "came). The variant is empty if none was chosen.",
            ("variant", "reason"),
            registry=self.registry,
        )
        self._refusal_seconds = Histogram(
            "upscale_refusal_seconds",
            "Seconds from a frame's arrival to its refusal.",
            buckets=_REFUSAL_SECONDS,
            registry=self.registry,
        )
        self._stepped_down = Counter(
            "upscale_stepped_down",
            "Frames answered by a lesser variant of the ladder than was asked for.",
            ("asked", "variant"),
            registry=self.registry,
        )
        self._batch_failures = Counter(
            "upscale_batch_failures",
            "Batches that a Triton endpoint did not answer; their frames may have been inferred elsewhere.",
            ("endpoint", "variant"),
            registry=self.registry,
        )
        self._batch_predicted_seconds = Gauge(
            "upscale_batch_predicted_seconds",
            "What a batch of so many frames, of the largest size that has come, is expected to take.",
            ("endpoint", "variant", "frames"),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._slots = Gauge(
            "upscale_slots",
            "Frame slots in shared memory: used; retired (used, and never to be used again); free.",
            ("state",),
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._triton_up = Gauge(
            "upscale_triton_up",
            "1 if the Triton endpoint is reachable.",
            ("endpoint",),
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._breaker_open = Gauge(
            "upscale_breaker_open",
            "1 while the Triton endpoint is left alone because its batches failed again and again.",
            ("endpoint",),
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._tasks = Gauge(
            "upscale_tasks",
            "Tasks of the gateway's event loop; a number that only grows is a leak.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._ready = Gauge(
            "upscale_ready",
            "Gateway processes that can answer frames.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._workers = Gauge(
            "upscale_workers",
            "Gateway processes that there should be.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._started_at = Gauge(
            "upscale_started_timestamp_seconds",
            "When the gateway process began, of several the last one that did, in seconds since 1970.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self._loop_turned_at = Gauge(
            "upscale_loop_turned_timestamp_seconds",
            "When the gateway's event loop last came round, of several the one that waits longest, in seconds since "
            "1970.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._loop_lag = Histogram(
            "upscale_loop_lag_seconds",
            "Seconds by which the gateway's event loop came late to its own timer, five times a second.",
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )
        self._certificate_ends_at = Gauge(
            "upscale_certificate_end_timestamp_seconds",
            "When the first of the service's own certificates ends, in seconds since 1970; 0 without TLS.",
            registry=self.registry,
            multiprocess_mode="livemin",
        )
        self._endpoints: set[str] = set()
        self._predicted: set[tuple[str, str, int]] = set()
        self._started = Counter(
            "grpc_server_started",
            "RPCs begun on the server.",
            ("grpc_service", "grpc_method"),
            registry=self.registry,
        )
        self._handled = Counter(
            "grpc_server_handled",
            "RPCs completed on the server, whatever their code.",
            ("grpc_service", "grpc_method", "grpc_code"),
            registry=self.registry,
        )
        self._handling = Histogram(
            "grpc_server_handling_seconds",
            "Seconds from an RPC's first header to its end.",
            ("grpc_service", "grpc_method"),
            buckets=_FRAME_SECONDS,
            registry=self.registry,
        )
        build = Gauge(
            "upscale_build_info", "What is running.", ("version",), registry=self.registry, multiprocess_mode="max"
        )
        build.labels(version("upscale-client")).set(1)

        self._sessions = Gauge(
            "upscale_sessions",
            "Sessions of UpscaleStream that are open.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._regions = Gauge(
            "upscale_client_regions",
            "Regions of shared memory that clients share.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def frame_done(self, method: str, variant: str, seconds: Mapping[Stage, float], budget_s: float | None) -> None:
        """A frame was answered; `seconds` are those of its stages."""
        frames, stages = self._of_variant(method, variant)
        frames.inc()
        total = sum(seconds.values())
        for stage in STAGES:
            stages[stage].observe(seconds[stage])
        stages["total"].observe(total)
        for name, most in BUDGETS.items():
            if total > most:
                self._budget_misses.labels(variant, name).inc()
        if budget_s is not None and total > budget_s:
            self._budget_misses.labels(variant, "request").inc()

    def _of_variant(self, method: str, variant: str) -> tuple[Counter, dict[str, Histogram]]:
        """The children that every frame of a variant needs; looking them up takes as long as counting."""
        key = (method, variant)
        if key not in self._children:
            stages = {stage: self._frame_seconds.labels(variant, stage) for stage in (*STAGES, "total")}
            self._children[key] = (self._frames.labels(method, variant, "OK"), stages)
            for budget in (*BUDGETS, "request"):
                self._budget_misses.labels(variant, budget)  # there from the first frame on, so that its rate is right
        return self._children[key]

    def frame_failed(self, method: str, variant: str, code: str) -> None:
        """A frame was refused or failed."""
        self._frames.labels(method, variant, code).inc()

    def budget_ended(self, variant: str, priority: str, outcome: Outcome) -> None:
        """A frame with a budget ended so."""
        key = (variant, priority)
        if key not in self._budget_children:
            # All from the first frame on: a rate does not see the step from "not there" to 1.
            labels = self._budget_frames.labels
            self._budget_children[key] = {each: labels(variant, priority, each) for each in OUTCOMES}
        self._budget_children[key][outcome].inc()

    def session(self) -> AbstractContextManager[object]:
        """A session is open as long as this is entered."""
        return self._sessions.track_inprogress()

    def regions(self, count: int) -> None:
        """So many clients' regions are known."""
        self._regions.set(count)

    def frame_shed(self, variant: str, reason: str) -> None:
        """A frame was given up before it was inferred."""
        self._shed.labels(variant, reason).inc()

    def frame_refused(self, variant: str, reason: str, seconds: float) -> None:
        """A frame was refused so long after it had come."""
        self.frame_shed(variant, reason)
        self._refusal_seconds.observe(seconds)

    def batch_started(self, variant: str, frames: int) -> None:
        """A batch went to Triton."""
        self._batch_frames.labels(variant).observe(frames)

    def queue(self, variant: str, frames: int) -> None:
        """So many frames wait for the variant."""
        self._queue_frames.labels(variant).set(frames)

    def slots(self, used: int, retired: int, most: int) -> None:
        """So many slots are in use."""
        self._inflight_frames.set(used)
        for state, count in (("used", used - retired), ("retired", retired), ("free", most - used)):
            self._slots.labels(state).set(count)

    def endpoints(self, up: Mapping[str, bool], breakers_open: Mapping[str, bool]) -> None:
        """These Triton endpoints there are, whether they are reachable, and whether they are left alone."""
        for gone in self._endpoints - up.keys():
            self._triton_up.remove(gone)
            self._breaker_open.remove(gone)
        self._endpoints = set(up)
        for endpoint in up:
            self._triton_up.labels(endpoint).set(up[endpoint])
            self._breaker_open.labels(endpoint).set(breakers_open[endpoint])

    def ready(self, ready: bool) -> None:
        """Frames can be answered, or not."""
        self._ready.set(ready)

    def started(self, workers: int, now: float) -> None:
        """The process begins, one of so many; `now` is in seconds since 1970."""
        self._workers.set(workers)
        self._started_at.set(now)
        self._loop_turned_at.set(now)

    def loop_turned(self, lag_s: float, now: float) -> None:
        """The event loop came round, so much later than it should have."""
        self._loop_turned_at.set(now)
        self._loop_lag.observe(max(0.0, lag_s))

    def certificate_ends(self, at: float) -> None:
        """The service's certificate ends then, in seconds since 1970."""
        self._certificate_ends_at.set(at)

    def tasks(self, count: int) -> None:
        """So many tasks there are."""
        self._tasks.set(count)

    def batch_times(self, seconds: Mapping[tuple[str, str, int], float]) -> None:
        """What batches are expected to take, by endpoint, variant and frames."""
        for gone in self._predicted - seconds.keys():
            self._batch_predicted_seconds.remove(*gone)
        self._predicted = set(seconds)
        for (endpoint, variant, frames), each in seconds.items():
            self._batch_predicted_seconds.labels(endpoint, variant, frames).set(each)

    def batch_failed(self, endpoint: str, variant: str) -> None:
        """A batch was not answered."""
        self._batch_failures.labels(endpoint, variant).inc()

    def stepped_down(self, asked: str, variant: str) -> None:
        """A frame was answered by another variant than it asked for."""
        self._stepped_down.labels(asked, variant).inc()

    def rpc_started(self, service: str, method: str) -> None:
        """An RPC began."""
        self._started.labels(service, method).inc()

    def rpc_handled(self, service: str, method: str, code: str, seconds: float) -> None:
        """An RPC ended."""
        self._handled.labels(service, method, code).inc()
        self._handling.labels(service, method).observe(seconds)
