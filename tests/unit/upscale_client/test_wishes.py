"""What is asked of either client, or of the command line, is what a service is told: over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from PIL import Image
from typer.testing import CliRunner

from upscale_client import AsyncUpscaleClient, BatchTime, UpscaleClient
from upscale_client.cli import app
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceServicer, add_UpscaleServiceServicer_to_server

FRAME = np.zeros((16, 16, 3), np.uint8)
PNG = pb.Frame(width=32, height=32, encoding=pb.ENCODING_PNG, data=b"picture")
WISHES: list[tuple[dict[str, Any], tuple[pb.Priority, bool]]] = [
    ({}, (pb.PRIORITY_LIVE, False)),
    ({"priority": "offline"}, (pb.PRIORITY_OFFLINE, False)),
    ({"priority": "live", "step_down": True}, (pb.PRIORITY_LIVE, True)),
]


class Service(UpscaleServiceServicer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[pb.Priority, bool]] = []

    def Upscale(self, request: pb.UpscaleRequest, context: Any) -> pb.UpscaleResponse:  # noqa: N802
        self.told.append((request.priority, request.step_down))
        return pb.UpscaleResponse(model="bicubic", variant="bicubic_x2", frame=PNG)

    def UpscaleStream(  # noqa: N802
        self, request_iterator: Iterator[pb.UpscaleStreamRequest], context: Any
    ) -> Iterator[pb.UpscaleStreamResponse]:
        options = next(request_iterator).options
        self.told.append((options.priority, options.step_down))
        yield from (pb.UpscaleStreamResponse(model="bicubic", frame=PNG) for _ in request_iterator)

    def ShareRegion(self, request: pb.ShareRegionRequest, context: Any) -> Iterator[Any]:  # noqa: N802
        yield pb.ShareRegionResponse(handle="handle")

    def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        known = pb.Variant(name="runet_x2_clean", profile=pb.PROFILE_CLEAN, pixel_format=pb.ENCODING_RGB24)
        unknown = pb.Variant(name="bicubic_x2", profile=pb.PROFILE_CLEAN, pixel_format=pb.ENCODING_RGB24)
        for frames in (1, 4):
            known.batch_times.add(
                endpoint="gpu0:8001",
                width=1920,
                height=1080,
                frames=frames,
                predicted=Duration(nanos=frames * 2_500_000),
            )
        return pb.ListModelsResponse(variants=[known, unknown])


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_UpscaleServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(("wish", "told"), WISHES)
def test_a_client_says_who_goes_first_and_who_steps_down(
    service: Service, address: str, wish: dict[str, Any], told: tuple[pb.Priority, bool]
) -> None:
    with UpscaleClient(address) as client:
        assert client.upscale(FRAME, **wish).model == "bicubic"
        assert [answer.result().model for answer in client.stream([FRAME], **wish)] == ["bicubic"]
        with client.shared_frames(16, 16, scale=2, **wish) as shared:
            shared.upscale()
    assert service.told == [told] * 3


@pytest.mark.parametrize(("wish", "told"), WISHES)
async def test_asyncio_says_the_same(
    service: Service, address: str, wish: dict[str, Any], told: tuple[pb.Priority, bool]
) -> None:
    async def frames() -> AsyncIterator[Any]:
        yield FRAME

    async with AsyncUpscaleClient(address) as client:
        assert (await client.upscale(FRAME, **wish)).model == "bicubic"
        assert [answer.result().model async for answer in client.stream(frames(), **wish)] == ["bicubic"]
        async with await client.shared_frames(16, 16, scale=2, **wish) as shared:
            await shared.upscale()
    assert service.told == [told] * 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], (pb.PRIORITY_OFFLINE, False)),
        (["--live"], (pb.PRIORITY_LIVE, False)),
        (["--offline", "--step-down"], (pb.PRIORITY_OFFLINE, True)),
    ],
)
def test_files_are_no_live_stream_unless_they_are_said_to_be(
    service: Service, address: str, tmp_path: Path, options: list[str], told: tuple[pb.Priority, bool]
) -> None:
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    done = CliRunner().invoke(app, [str(tmp_path / "a.png"), "--address", address, *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a_4k.png").read_bytes() == b"picture"
    assert service.told == [told]


def test_what_batches_are_expected_to_take_is_listed(address: str) -> None:
    with UpscaleClient(address) as client:
        known, unknown = client.list_models()
    assert known.batch_times == (
        BatchTime("gpu0:8001", 1920, 1080, frames=1, predicted_s=0.0025),
        BatchTime("gpu0:8001", 1920, 1080, frames=4, predicted_s=0.01),
    )
    assert unknown.batch_times == ()
