"""What both clients do alike: the methods on a channel, and what becomes of a session's frames and its end."""

from __future__ import annotations

from collections.abc import Callable
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
    """The methods on a channel of either kind, with the wire form of those that carry frames."""

    def __init__(self, channel: Any) -> None:
        self.upscale: Callable[..., Any] = channel.unary_unary(
            f"/{_SERVICE}/Upscale",
            request_serializer=wire.serialise,
            response_deserializer=lambda data: wire.parse(pb.UpscaleResponse, data),
        )
        self.stream: Callable[..., Any] = channel.stream_stream(
            f"/{_SERVICE}/UpscaleStream",
            request_serializer=wire.serialise,
            response_deserializer=lambda data: wire.parse(pb.UpscaleStreamResponse, data),
        )
        self.share_region: Callable[..., Any] = channel.unary_stream(
            f"/{_SERVICE}/ShareRegion",
            request_serializer=pb.ShareRegionRequest.SerializeToString,
            response_deserializer=pb.ShareRegionResponse.FromString,
        )
        self.list_models: Callable[..., Any] = channel.unary_unary(
            f"/{_SERVICE}/ListModels",
            request_serializer=pb.ListModelsRequest.SerializeToString,
            response_deserializer=pb.ListModelsResponse.FromString,
        )


def numbered(frame: Pixels | bytes | StreamFrame, number: int) -> StreamFrame:
    """The frame with its sequence number: its own, or the one it has in its turn."""
    return frame if isinstance(frame, StreamFrame) else StreamFrame(frame, number)


def summary(trailing: Any) -> StreamSummary:
    """How a session went, from its trailing metadata."""
    data = next((value for key, value in trailing or () if key == _SUMMARY_KEY), b"")
    message = pb.StreamSummary.FromString(data)
    return StreamSummary(message.answered, message.failed, message.dropped)
