"""What both clients do alike: the methods on a channel, and what becomes of a session's frames and its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upscale_client import wire
from upscale_client._messages import StreamFrame, StreamSummary
from upscale_client.v1 import upscale_pb2 as pb

Pixels = NDArray[np.uint8]
DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0
# The service bounds what it takes; an answer is as large as we asked for.
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_SERVICE = pb.DESCRIPTOR.services_by_name["UpscaleService"].full_name
_SUMMARY_KEY = "upscale-summary-bin"


class Stub:
    """The methods on a channel of either kind, with the wire form of those that carry frames.

    If the application has a current OpenTelemetry span, the service is told of it.
    """

    def __init__(self, channel: Any) -> None:
        self.upscale: Callable[..., Any] = _traced(
            channel.unary_unary(
                f"/{_SERVICE}/Upscale",
                request_serializer=wire.serialise,
                response_deserializer=lambda data: wire.parse(pb.UpscaleResponse, data),
            )
        )
        self.stream: Callable[..., Any] = _traced(
            channel.stream_stream(
                f"/{_SERVICE}/UpscaleStream",
                request_serializer=wire.serialise,
                response_deserializer=lambda data: wire.parse(pb.UpscaleStreamResponse, data),
            )
        )
        self.share_region: Callable[..., Any] = _traced(
            channel.unary_stream(
                f"/{_SERVICE}/ShareRegion",
                request_serializer=pb.ShareRegionRequest.SerializeToString,
                response_deserializer=pb.ShareRegionResponse.FromString,
            )
        )
        self.list_models: Callable[..., Any] = _traced(
            channel.unary_unary(
                f"/{_SERVICE}/ListModels",
                request_serializer=pb.ListModelsRequest.SerializeToString,
                response_deserializer=pb.ListModelsResponse.FromString,
            )
        )


def _traced(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, told of the current span."""

    def call(request: object, *, metadata: Iterable[tuple[str, str]] = (), **options: Any) -> Any:
        return method(request, metadata=(*metadata, *_trace_headers().items()), **options)

    return call


def _trace_headers() -> dict[str, str]:
    """W3C's `traceparent` of the current OpenTelemetry span, if there is one.

    There can be none unless the application has imported OpenTelemetry, so it is not imported for that.
    """
    headers: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers


def numbered(frame: Pixels | bytes | StreamFrame, number: int) -> StreamFrame:
    """The frame with its sequence number: its own, or the one it has in its turn."""
    return frame if isinstance(frame, StreamFrame) else StreamFrame(frame, number)


def summary(trailing: Any) -> StreamSummary:
    """How a session went, from its trailing metadata."""
    data = next((value for key, value in trailing or () if key == _SUMMARY_KEY), b"")
    message = pb.StreamSummary.FromString(data)
    return StreamSummary(message.answered, message.failed, message.dropped)
