"""What both clients do alike: the methods on a channel, and what becomes of a session's frames and its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from upscale_client import wire
from upscale_client._errors import InternalError
from upscale_client._messages import StreamFrame, StreamSummary
from upscale_client.v1 import upscale_pb2 as pb

Pixels = NDArray[np.uint8]
DEFAULT_ADDRESS = "localhost:50051"
DEFAULT_TIMEOUT_S = 30.0
MOST_FREE_BYTES = 256 * 2**20
"""What a client's process keeps at most of memory that it does not use: ten RGB frames in 4K."""
# The service bounds what it takes; an answer is as large as we asked for.
OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A session or a shared region may be silent for long: so a host that vanished without a word is noticed within half
    # a minute. The service allows a ping every 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]
_SERVICE = pb.DESCRIPTOR.services_by_name["UpscaleService"].full_name
_SUMMARY_KEY = "upscale-summary-bin"


@dataclass(frozen=True)
class Tls:
    """A connection by TLS; the files are PEM.

    Attributes:
        ca: whose certificates are trusted; None for the public authorities.
        certificate: the client's own, where the service asks for one.
        key: its private key.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """As gRPC wants them.

        Raises:
            OSError: a file cannot be read.
            ValueError: the certificate and its key are not both there.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client's certificate and its key belong together: one is set and the other is not")
        ca, key, certificate = (
            None if path is None else Path(path).read_bytes() for path in (self.ca, self.key, self.certificate)
        )
        return grpc.ssl_channel_credentials(ca, key, certificate)


Token = str | Callable[[], str]
"""What a client shows the service, or a function that gives it for every call, so that it may change."""


def credentials(address: str, tls: bool | Tls, token: Token) -> grpc.ChannelCredentials | None:
    """For a channel; None for one without TLS.

    Raises:
        OSError, ValueError: see `Tls`; or a token would be sent in clear text to another host.
    """
    if tls:
        return (Tls() if tls is True else tls).credentials()
    host = address.removeprefix("dns:").strip("/").rpartition(":")[0].strip("[]")
    if token and not (host in ("localhost", "::1") or host.startswith("127.") or address.startswith("unix:")):
        raise ValueError(f"a token would go to {address} in clear text: use tls")
    return None


class Stub:
    """The methods on a channel of either kind, with the wire form of those that carry frames.

    If the application has a current OpenTelemetry span, the service is told of it.
    """

    def __init__(self, channel: Any, token: Token = "") -> None:
        def with_metadata(call: Callable[..., Any]) -> Callable[..., Any]:
            def called(request: object, timeout: float | None = None) -> Any:
                metadata = _trace_headers()
                if token:
                    shown = token if isinstance(token, str) else token()
                    metadata["authorization"] = f"Bearer {shown}"
                return call(request, timeout=timeout, metadata=tuple(metadata.items()))

            return called

        self.upscale = with_metadata(
            channel.unary_unary(
                f"/{_SERVICE}/Upscale",
                request_serializer=wire.serialise,
                response_deserializer=lambda data: wire.parse(pb.UpscaleResponse, data),
            )
        )
        self.stream = with_metadata(
            channel.stream_stream(
                f"/{_SERVICE}/UpscaleStream",
                request_serializer=wire.serialise,
                response_deserializer=lambda data: wire.parse(pb.UpscaleStreamResponse, data),
            )
        )
        self.share_region = with_metadata(
            channel.unary_stream(
                f"/{_SERVICE}/ShareRegion",
                request_serializer=pb.ShareRegionRequest.SerializeToString,
                response_deserializer=pb.ShareRegionResponse.FromString,
            )
        )
        self.list_models = with_metadata(
            channel.unary_unary(
                f"/{_SERVICE}/ListModels",
                request_serializer=pb.ListModelsRequest.SerializeToString,
                response_deserializer=pb.ListModelsResponse.FromString,
            )
        )


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
    """How a session went, from its trailing metadata.

    Raises:
        InternalError: they say it in a way that this client does not understand.
    """
    data = next((value for key, value in trailing or () if key == _SUMMARY_KEY), b"")
    try:
        message = pb.StreamSummary.FromString(data)
    except wire.DecodeError as error:
        raise InternalError(f"the session's summary is not understood: {error}", grpc.StatusCode.INTERNAL) from error
    return StreamSummary(message.answered, message.failed, message.dropped)
