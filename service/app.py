"""The composition root: builds every part from the settings, starts them, stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health  # pyright: ignore[reportAttributeAccessIssue] - its stubs forgot it
from grpc_reflection.v1alpha import reflection

from service.access.gate import Gate
from service.access.tls import server_credentials
from service.catalog import Catalog
from service.delivery import Delivery
from service.endpoints import Endpoints
from service.failures import FailureLog
from service.frames import FrameStore
from service.interceptors import CallInterceptor
from service.line import FrameLine
from service.metrics import Metrics
from service.ops import OpsServer
from service.regions import Regions
from service.rpc import SERVICE, UpscaleServicer
from service.scheduler import BatchTime, Scheduler
from service.settings import Settings

if TYPE_CHECKING:
    from service.tracing import Tracing

log = logging.getLogger(__name__)

_METRICS_EVERY_S = 0.2
_STUCK_AFTER_S = 10.0
"""An event loop that has not turned for so long will not any more."""
_KEEPALIVE_S = (30, 10)
"""How often a silent connection is asked whether its other end is still there, and how long that may take to answer."""
_PINGS_NO_FASTER_S = 10
"""A client that asks us that more often is cut off."""


class StartError(RuntimeError):
    """The gateway cannot start; the message says why."""


class Gateway:
    """The running service.

    Args:
        settings: its own.
        one_of_many: it shares its port with others, and leaves the serving of metrics to their supervisor.

    Raises:
        StartError: a file of the settings cannot be read, or makes no sense.
    """

    def __init__(self, settings: Settings, *, one_of_many: bool = False) -> None:
        self._one_of_many = one_of_many
        self._settings = settings
        self._metrics = Metrics()
        self._failures = FailureLog(settings.log_failures_per_s)
        self._tracing = _tracing(settings)
        self._catalog = Catalog(
            settings.default_model, settings.default_profile, settings.max_output_pixels, settings.ladder_models
        )
        self._frames = FrameStore(settings.max_inflight_frames, settings.shared_memory_bytes)
        self._scheduler = Scheduler(
            self._frames,
            on_batch=self._metrics.batch_started,
            on_drop=self._metrics.frame_shed,
            on_failure=self._metrics.batch_failed,
            tracing=self._tracing,
        )
        self._endpoints = Endpoints(settings, self._frames, self._scheduler, self._served)
        self._codecs = ThreadPoolExecutor(settings.codec_threads, thread_name_prefix="codec")
        self._regions = Regions(self._frames, settings.max_client_regions)
        line = FrameLine(
            self._catalog,
            self._frames,
            self._regions,
            self._scheduler,
            self._metrics,
            self._codecs,
            settings.min_side,
            self._failures,
            self._tracing,
        )
        self._servicer = UpscaleServicer(settings, self._catalog, line, self._scheduler, self._regions, self._metrics)
        self._health: Any = health.HealthServicer()
        self._ready: bool | None = None
        self._serving = False
        self._turned_at = time.monotonic()
        gate, tls = access(settings)
        self._credentials, self._certificate_ends = tls or (None, None)
        self._background: list[asyncio.Task[None]] = []
        self._delivery = Delivery(always=settings.connection_age_s > 0)
        self._server = grpc.aio.server(
            interceptors=[
                CallInterceptor(self._metrics, self._failures, gate, settings.receive_timeout_s, self._delivery)
            ],
            # The outer limit. The inner ones answer better, but only after reading a message.
            maximum_concurrent_rpcs=(
                4 * settings.max_inflight_frames + settings.max_sessions + settings.max_client_regions + 16
            ),
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", settings.max_metadata_bytes),
                ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
                ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
                ("grpc.max_connection_idle_ms", round(1000 * settings.connection_idle_s)),
                *(
                    [("grpc.max_connection_age_ms", round(1000 * settings.connection_age_s))]
                    * (settings.connection_age_s > 0)
                ),
                ("grpc.http2.min_ping_interval_without_data_ms", 1000 * _PINGS_NO_FASTER_S),
                ("grpc.keepalive_time_ms", 1000 * _KEEPALIVE_S[0]),
                ("grpc.keepalive_timeout_ms", 1000 * _KEEPALIVE_S[1]),
                # A second gateway on the port is a mistake and shall be told, unless it is meant.
                ("grpc.so_reuseport", int(one_of_many)),
            ],
        )
        self._ops: OpsServer | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen; ready when Triton is.

        Raises:
            StartError: a port is taken.
        """
        settings = self._settings
        self._metrics.started(settings.workers, time.time())
        self._server.add_generic_rpc_handlers((self._servicer.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME), self._server)
        try:
            where = f"{settings.host}:{settings.port}"
            if self._credentials is None:
                self.port = self._server.add_insecure_port(where)
            else:
                self.port = self._server.add_secure_port(where, self._credentials)
        except RuntimeError:
            raise StartError(f"cannot listen on {settings.host}:{settings.port}: is another gateway running?") from None
        if not self._one_of_many:
            host = settings.metrics_host or settings.host
            try:
                self._ops = OpsServer(
                    host,
                    settings.metrics_port,
                    self._metrics.registry,
                    alive=lambda: time.monotonic() < self._turned_at + _STUCK_AFTER_S,
                    ready=lambda: self._is_ready,
                )
            except OSError as error:
                raise StartError(
                    f"cannot listen on {host}:{settings.metrics_port} for metrics: {error.strerror}"
                ) from None
        self._background = [asyncio.create_task(self._watch_gauges())]
        await self._endpoints.look()
        self._background.append(asyncio.create_task(self._endpoints.watch()))
        await self._server.start()
        self._serving = True
        self._metrics.ready(self._is_ready)
        log.info(
            "gRPC on port %d (%s), Triton at %s",
            self.port,
            "no TLS" if self._credentials is None else "TLS" if settings.tls_client_ca is None else "mTLS",
            settings.triton_url,
        )

    async def stop(self) -> None:
        """Finish what is in flight, then stop: first what takes work, last what shows how it went."""
        began = time.monotonic()
        self._serving = False
        self._metrics.ready(False)
        await self._health.enter_graceful_shutdown()
        self._servicer.stop()
        self._delivery.begin()
        await self._server.stop(self._settings.shutdown_grace_s)
        await self._scheduler.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._codecs.shutdown()
        self._regions.close()
        await self._endpoints.close()
        self._frames.close()
        self._failures.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self._ops is not None:
            self._ops.close()
        log.info("stopped after %.1f s", time.monotonic() - began)

    @property
    def _is_ready(self) -> bool:
        return self._serving and bool(self._ready)

    def _served(self) -> None:
        """What the endpoints serve may be another; tell the catalogue, the metrics and the health checks."""
        serving = [variant for endpoint in self._endpoints for variant in endpoint.serving]
        self._catalog.update(serving)
        self._metrics.endpoints(
            {endpoint.url: endpoint.up for endpoint in self._endpoints},
            {endpoint.url: endpoint.breaker != "closed" for endpoint in self._endpoints},
        )
        ready = bool(serving)
        if ready != self._ready:
            self._ready = ready
            self._metrics.ready(self._is_ready)
            self._health_told = asyncio.create_task(self._tell_health(ready))

    async def _tell_health(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)  # changes nothing once the graceful shutdown has begun

    async def _watch_gauges(self) -> None:
        due = time.monotonic()
        while True:
            self._turned_at = now = time.monotonic()
            self._metrics.loop_turned(now - due, time.time())
            self._metrics.slots(self._frames.in_use, self._frames.retired, self._settings.max_inflight_frames)
            self._metrics.regions(len(self._regions))
            self._metrics.tasks(len(asyncio.all_tasks()))
            waiting = self._scheduler.waiting()
            for variant in self._catalog.variants:
                self._metrics.queue(variant.name, waiting.get(variant.name, 0))
            if self._certificate_ends:
                self._metrics.certificate_ends(self._certificate_ends())
            self._metrics.batch_times(self._largest_batch_times())
            due = time.monotonic() + _METRICS_EVERY_S
            await asyncio.sleep(_METRICS_EVERY_S)

    def _largest_batch_times(self) -> dict[tuple[str, str, int], float]:
        """Of each kind of batch, that of the largest frames."""
        largest: dict[tuple[str, str, int], BatchTime] = {}
        for each in self._scheduler.times():
            key = (each.endpoint, each.variant, each.frames)
            if key not in largest or largest[key].layout.input_bytes < each.layout.input_bytes:
                largest[key] = each
        return {key: each.seconds for key, each in largest.items()}


def _tracing(settings: Settings) -> Tracing | None:
    """What makes the spans, if any are wanted.

    Raises:
        StartError: its packages are not installed.
    """
    if not settings.otlp_endpoint:
        return None
    try:
        from service.tracing import Tracing
    except ModuleNotFoundError as error:
        raise StartError(
            f"otlp_endpoint is set, but {error.name} is not installed: pip install --group tracing"
        ) from None
    return Tracing(settings.otlp_endpoint, settings.trace_ratio)


def access(settings: Settings) -> tuple[Gate, tuple[grpc.ServerCredentials, Callable[[], float]] | None]:
    """Who may call, and the service's certificate, if it has one, and what gives the moment at which it ends.

    Raises:
        StartError: a file of the settings cannot be read, or makes no sense.
    """
    try:
        gate = Gate(settings)
    except (OSError, ValueError) as error:
        raise StartError(f"auth_keys={settings.auth_keys}, auth_jwt_keys={settings.auth_jwt_keys}: {error}") from None
    if settings.tls_certificate is None or settings.tls_key is None:
        return gate, None
    files = (settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    try:
        return gate, server_credentials(*files)
    except (OSError, ValueError) as error:
        raise StartError("tls_certificate={}, tls_key={}, tls_client_ca={}: ".format(*files) + str(error)) from None


async def serve(settings: Settings, *, one_of_many: bool = False) -> None:
    """Run the gateway until SIGTERM or SIGINT, then stop it gracefully."""
    gateway = Gateway(settings, one_of_many=one_of_many)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    await gateway.start()
    await stop.wait()
    log.info("stopping: frames in flight have %g s to finish", settings.shutdown_grace_s)
    with contextlib.suppress(asyncio.CancelledError):
        await gateway.stop()
