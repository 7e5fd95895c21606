"""OpenTelemetry traces: a span for every frame, with one for each of its stages, and one for every batch.

A frame's span is begun when the frame comes, and its stages are told at its end, from its clock: nothing is done for
them while it is on its way. This module is imported only where traces are wanted, for its packages are optional.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import trace_context
from service.timing import STAGES, StageClock

log = logging.getLogger(__name__)

Attributes = Mapping[str, str | bool | int | float]
_SERVICE = "upscale.v1.UpscaleService"
_EXPORT_TIMEOUT_S = 3.0
# A server's span is an error by these alone: OpenTelemetry's semantic conventions for gRPC.
_SERVERS_FAULT = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


class FrameSpan:
    """A frame's part in its trace.

    Args:
        tracer: makes the stages' spans.
        span: the frame's.
        began_ns: when it began, in nanoseconds since 1970.
    """

    def __init__(self, tracer: trace.Tracer, span: Span, began_ns: int) -> None:
        self._tracer = tracer
        self._began_ns = began_ns
        self.span = span
        self.batch: trace.SpanContext | None = None
        """Of the batch that it was inferred in, the last one if there were several."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return trace.format_trace_id(self.span.get_span_context().trace_id)

    @property
    def recorded(self) -> bool:
        """Whether it is exported."""
        return self.span.is_recording()

    def answered(self, clock: StageClock, attributes: Attributes) -> None:
        """The frame was answered at the clock's last lap."""
        self._end(clock, clock.total, {"rpc.response.status_code": "OK", **attributes})

    def failed(self, clock: StageClock, attributes: Attributes, *, code: str, reason: str, message: str) -> None:
        """The frame failed just now; the time since the last lap is of the stage it was in."""
        if not self.recorded:
            return
        if code in _SERVERS_FAULT:
            self.span.set_status(Status(StatusCode.ERROR, message))
        total = time.perf_counter() - clock.arrival
        self._end(clock, total, {"rpc.response.status_code": code, "error.type": reason, **attributes})

    def _end(self, clock: StageClock, total_s: float, attributes: Attributes) -> None:
        if not self.recorded:
            return
        context = trace.set_span_in_context(self.span)
        at_s = 0.0
        for stage in STAGES:
            took_s = clock.seconds[stage]
            if stage == clock.stage:
                took_s += total_s - clock.total
            if took_s > 0:
                links = [Link(self.batch)] if stage == "infer" and self.batch is not None else []
                child = self._tracer.start_span(stage, context, links=links, start_time=self._moment(at_s))
                child.end(self._moment(at_s + took_s))
            at_s += took_s
        self.span.set_attributes(attributes)
        self.span.end(self._moment(total_s))

    def _moment(self, seconds: float) -> int:
        return self._began_ns + round(1e9 * seconds)


class Tracing:
    """Makes spans, and has them exported by a thread of its own.

    Args:
        endpoint: of an OTLP receiver by gRPC, http://host:port, or https. Headers and certificates for it are taken
            from OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_*.
        ratio: of the traces that begin here, those that are recorded. Whether one is that began at a client, the
            client has decided.
    """

    def __init__(self, endpoint: str, ratio: float) -> None:
        # They would say of every batch of spans what `_Exporter` says once.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)
        ours = {
            "service.name": "upscale-gateway",
            "service.version": version("upscale-client"),
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
        self._exporter = _Exporter(OTLPSpanExporter(endpoint, timeout=_EXPORT_TIMEOUT_S), endpoint)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours.
            resource=Resource(ours).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("service", version("upscale-client"))
        self._headers = TraceContextTextMapPropagator()

    def frame(self, method: str, clock: StageClock) -> FrameSpan:
        """The span of a frame that has just come; the call's `trace_context.parent` is its parent."""
        began_ns = time.time_ns() - round(1e9 * (time.perf_counter() - clock.arrival))
        parent = trace_context.parent.get()
        unary = method == "Upscale"
        span = self._tracer.start_span(
            f"{_SERVICE}/{method}" if unary else f"{method} frame",
            self._headers.extract(parent.headers) if parent else None,
            kind=SpanKind.SERVER if unary else SpanKind.INTERNAL,
            attributes={"rpc.system.name": "grpc", "rpc.method": f"{_SERVICE}/{method}"},
            start_time=began_ns,
        )
        return FrameSpan(self._tracer, span, began_ns)

    @contextlib.contextmanager
    def batch(self, endpoint: str, variant: str, frames: Sequence[FrameSpan | None]) -> Generator[None]:
        """Around the inference of a batch; `frames` are those of its frames that have a span.

        Its span is a child of the first one's that is recorded, and linked to them all; without any there is none.
        """
        recorded = [frame for frame in frames if frame is not None and frame.recorded]
        if not recorded:
            yield
            return
        span = self._tracer.start_span(
            "batch",
            trace.set_span_in_context(recorded[0].span),
            kind=SpanKind.CLIENT,
            attributes={
                "upscale.batch_frames": len(frames),
                "upscale.variant": variant,
                "server.address": endpoint,
                "rpc.system.name": "grpc",
                "rpc.method": "inference.GRPCInferenceService/ModelInfer",
            },
            links=[Link(frame.span.get_span_context()) for frame in recorded],
        )
        for frame in recorded:
            frame.batch = span.get_span_context()
        try:
            yield
        except Exception as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR, str(error)))
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Export what is left, if that can be done soon; blocks for some seconds at most."""
        self._exporter.closing = True
        self._provider.shutdown()


class _Exporter(SpanExporter):
    """An exporter whose failure is told once, and so is its end.

    Args:
        exporter: that exports.
        endpoint: its name.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self.closing = False
        """Whether there is no time to wait for a receiver that does not answer."""
        self._exporter = exporter
        self._endpoint = endpoint
        self._lost = 0
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export them; called by the thread that exports."""
        if self.closing and self._failing:
            result = SpanExportResult.FAILURE
        else:
            try:
                result = self._exporter.export(spans)
            except Exception as error:
                log.debug("exporting spans failed", exc_info=error)
                result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._failing:
                log.warning("traces cannot be sent to %s: they are lost until that works again", self._endpoint)
            self._failing = True
            self._lost += len(spans)
        elif self._failing:
            log.info("traces are sent to %s again; %d spans were lost", self._endpoint, self._lost)
            self._failing, self._lost = False, 0
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()
