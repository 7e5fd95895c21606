"""Frames through the real chain: client, gateway, tritonserver and back."""

from __future__ import annotations

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray
from PIL import Image

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess
from export.graph import reference_graph
from models.registry import get
from models.weights import load
from tests.conftest import StartGateway
from training.metrics import psnr
from training.quality import upscale
from upscale_client import AsyncUpscaleClient, UpscaleClient
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

Pixels = NDArray[np.uint8]


def by_pytorch(frame: Pixels, scale: int) -> Pixels:
    """What the trained network makes of the frame in PyTorch, training form."""
    graph = reference_graph(get("runet"), load(get("runet"), scale, "clean"))
    with torch.inference_mode():
        return graph(torch.from_numpy(frame.copy())[None])[0].numpy()


def difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(np.int16) - b).max())


def crops(frame: Pixels, count: int, size: tuple[int, int] = (90, 160)) -> list[Pixels]:
    """Different pieces of a frame, so that a mix-up shows."""
    rng = np.random.default_rng(0)
    height, width = size
    places = zip(
        rng.integers(0, frame.shape[0] - height, count),
        rng.integers(0, frame.shape[1] // 3 - width, count),
        strict=True,
    )
    return [frame[top : top + height, left : left + width].copy() for top, left in places]


@pytest.mark.parametrize(("name", "scale"), [("lr_1080p", 2), ("lr_720p", 3)])
def test_a_served_frame_is_pytorchs_and_better_than_bicubic(
    client: UpscaleClient, request: pytest.FixtureRequest, hr: Pixels, name: str, scale: int
) -> None:
    frame: Pixels = request.getfixturevalue(name)
    answer = client.upscale(frame)
    assert (answer.width, answer.height, answer.encoding) == (3840, 2160, "rgb24")
    assert (answer.model, answer.variant) == ("runet", f"runet_x{scale}_clean")
    assert answer.batch_frames == 1
    reference = by_pytorch(frame, scale)
    assert difference(answer.array, reference) <= 1
    assert psnr(answer.array, hr) == pytest.approx(psnr(reference, hr), abs=0.01), "dB lost on the way"
    assert (
        psnr(answer.array, hr) > psnr(upscale(torch.nn.Upsample(scale_factor=scale, mode="bicubic"), frame), hr) + 0.1
    )


def test_the_stages_add_up(client: UpscaleClient, lr_720p: Pixels) -> None:
    answer = client.upscale(lr_720p)
    assert set(answer.stages_s) == {"receive", "decode", "queue", "infer", "encode"}
    assert all(seconds >= 0 for seconds in answer.stages_s.values())
    assert answer.stages_s["infer"] == max(answer.stages_s.values())


@pytest.mark.parametrize("size", [(16, 16), (97, 131), (135, 240)])
def test_frames_of_any_size_are_enlarged(client: UpscaleClient, lr_1080p: Pixels, size: tuple[int, int]) -> None:
    frame = lr_1080p[300 : 300 + size[0], 200 : 200 + size[1]].copy()
    for scale in (2, 3):
        assert difference(client.upscale(frame, scale=scale).array, by_pytorch(frame, scale)) <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_in_every_encoding_are_taken_and_given(client: UpscaleClient, lr_1080p: Pixels, kind: str) -> None:
    frame = lr_1080p[300:400, 200:360].copy()
    file = io.BytesIO()
    Image.fromarray(frame).save(file, kind, quality=95)
    decoded = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    raw = client.upscale(decoded).array
    assert np.array_equal(client.upscale(file.getvalue()).array, raw)
    answer = client.upscale(decoded, output=kind.lower(), quality=0 if kind == "PNG" else 100)  # pyright: ignore[reportArgumentType]
    with Image.open(io.BytesIO(answer.data)) as picture:
        assert picture.format == kind
        assert psnr(np.asarray(picture.convert("RGB")), raw) > (38 if kind == "JPEG" else 1000)


async def test_many_clients_each_get_their_own_frame_back(gateway: GatewayProcess, lr_1080p: Pixels) -> None:
    pieces = crops(lr_1080p, 12)
    wanted = [by_pytorch(piece, 2) for piece in pieces]
    async with AsyncUpscaleClient(gateway.address) as client:
        answers = await asyncio.gather(*(client.upscale(piece, scale=2) for piece in pieces))
    for answer, expected in zip(answers, wanted, strict=True):
        assert difference(answer.array, expected) <= 1
    assert max(answer.batch_frames for answer in answers) > 1, "frames that waited together should have ridden together"


def test_threads_share_a_client(client: UpscaleClient, lr_1080p: Pixels) -> None:
    pieces = crops(lr_1080p, 4) * 6
    wanted = [by_pytorch(piece, 2) for piece in pieces[:4]] * 6
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda piece: client.upscale(piece, scale=2), pieces))
    for answer, expected in zip(answers, wanted, strict=True):
        assert difference(answer.array, expected) <= 1


def test_frames_go_as_bytes_where_memory_is_not_shared(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels, client: UpscaleClient
) -> None:
    remote = start_gateway(triton.url, triton_shared_memory="off")
    with UpscaleClient(remote.address) as by_bytes:
        assert np.array_equal(by_bytes.upscale(lr_720p).array, client.upscale(lr_720p).array)
    remote.stop()


def test_models_and_limits_are_listed(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        listed = UpscaleServiceStub(channel).ListModels(pb.ListModelsRequest())
    assert [(variant.name, variant.ready) for variant in listed.variants] == [
        ("runet_x2_clean", True),
        ("runet_x3_clean", True),
    ]
    assert (listed.default_model, listed.default_profile) == ("runet", pb.PROFILE_CLEAN)
    assert listed.limits.max_output_pixels == 3840 * 2160
    assert listed.limits.max_message_bytes > 3 * 3840 * 2160


def test_health_and_reflection_are_standard(gateway: GatewayProcess) -> None:
    with grpc.insecure_channel(gateway.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "upscale.v1.UpscaleService"):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status  # pyright: ignore[reportAttributeAccessIssue]
            assert status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = reflection.ServerReflectionInfo(iter([request]))
        names = {service.name for service in next(iter(answers)).list_services_response.service}
    assert {"upscale.v1.UpscaleService", "grpc.health.v1.Health"} <= names
