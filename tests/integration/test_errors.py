"""Every error of the contract, by its code, its reason and its words; and the service goes on."""

from __future__ import annotations

import asyncio
import io
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess, LocalStackError
from tests.conftest import StartGateway
from upscale_client import (
    AsyncUpscaleClient,
    BudgetSpentError,
    BudgetTooSmallError,
    InvalidRequestError,
    MessageTooLargeError,
    ModelNotFoundError,
    OverloadedError,
    UpscaleClient,
    Upscaled,
    UpscaleError,
)
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

Pixels = NDArray[np.uint8]
FRAME = np.zeros((90, 160, 3), np.uint8)


@pytest.fixture(autouse=True)
def goes_on(client: UpscaleClient) -> Iterator[None]:
    """After every test the service answers, and holds no slot."""
    yield
    assert client.upscale(FRAME).width == 480


def png(width: int = 160, height: int = 90) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(file, "PNG")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A small PNG that unpacks to side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(3 * side + 1)) for _ in range(side)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("ask", "kind", "reason", "words"),
    [
        (lambda c: c.upscale(FRAME, model="nope"), ModelNotFoundError, "MODEL_UNKNOWN", "served are: runet"),
        (lambda c: c.upscale(FRAME, scale=4), ModelNotFoundError, "MODEL_UNKNOWN", "scale 4; served are: x2, x3"),
        (lambda c: c.upscale(FRAME, profile="compressed"), ModelNotFoundError, "MODEL_UNKNOWN", "served are: clean"),
        (lambda c: c.upscale(FRAME[:8]), InvalidRequestError, "FRAME_INVALID", "frame.height is 8; the least is 16"),
        (
            lambda c: c.upscale(np.zeros((1081, 1920, 3), np.uint8)),
            InvalidRequestError,
            "FRAME_INVALID",
            "frame of 1920x1081: x2 would give 3840x2162, more than the 8294400 pixels allowed",
        ),
        (lambda c: c.upscale(png()[:150]), InvalidRequestError, "FRAME_INVALID", "not a whole PNG picture"),
        (lambda c: c.upscale(png()[:20]), InvalidRequestError, "FRAME_INVALID", "not a PNG picture"),
        (lambda c: c.upscale(png(15, 99)), InvalidRequestError, "FRAME_INVALID", "frame.width is 15"),
        (lambda c: c.upscale(bomb(20_000)), InvalidRequestError, "FRAME_INVALID", "frame of 20000x20000"),
        (
            lambda c: c.upscale(FRAME, output="jpeg", quality=101),
            InvalidRequestError,
            "REQUEST_INVALID",
            "quality is 101",
        ),
        (lambda c: c.upscale(FRAME, quality=5), InvalidRequestError, "REQUEST_INVALID", "quality is 5"),
        (lambda c: c.upscale(FRAME, budget_s=0), InvalidRequestError, "REQUEST_INVALID", "budget is 0 s"),
        (lambda c: c.upscale(FRAME, budget_s=1e-6), BudgetSpentError, "BUDGET_SPENT", "time ran out"),
        (lambda c: c.upscale(np.zeros((2161, 3840, 3), np.uint8)[:, :3840]), InvalidRequestError, "FRAME_INVALID", ""),
        (lambda c: c.upscale(np.zeros((2200, 3840, 3), np.uint8)), MessageTooLargeError, "", "larger than max"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_what_is_accepted(
    client: UpscaleClient, ask: Callable[[UpscaleClient], object], kind: type[UpscaleError], reason: str, words: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.reason == reason
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            pb.Frame(width=160, height=90, encoding=pb.ENCODING_RGB24, data=bytes(100)),
            "frame.data has 100 bytes; 160x90",
        ),
        (pb.Frame(width=160, height=90, encoding=pb.ENCODING_RGB24), "frame.data is missing"),
        (pb.Frame(), "frame.data is missing"),
        (pb.Frame(encoding=pb.ENCODING_PNG, data=png(), width=161), "the picture's width is 160"),
    ],
)
def test_messages_no_client_of_ours_would_send(gateway: GatewayProcess, frame: pb.Frame, words: str) -> None:
    with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as caught:
        UpscaleServiceStub(channel).Upscale(pb.UpscaleRequest(frame=frame))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


def test_a_priority_that_the_service_does_not_know(gateway: GatewayProcess) -> None:
    request = pb.UpscaleRequest.FromString(b"\x30\x09")  # field 6 is 9
    with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as caught:
        UpscaleServiceStub(channel).Upscale(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "priority is 9 (unknown); accepted are: PRIORITY_LIVE, PRIORITY_OFFLINE"


def test_a_bomb_costs_no_time(client: UpscaleClient) -> None:
    data = bomb(12_000)  # 432 MB of pixels
    began = time.monotonic()
    with pytest.raises(InvalidRequestError):
        client.upscale(data)
    assert time.monotonic() - began < 0.5


async def test_a_full_gateway_refuses_at_once_and_serves_the_rest(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    small = start_gateway(triton.url, max_inflight_frames=2)
    async with AsyncUpscaleClient(small.address) as client:
        results = await asyncio.gather(*(client.upscale(lr_720p) for _ in range(8)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, OverloadedError)]
        served = [result for result in results if isinstance(result, Upscaled)]
        assert len(refused) + len(served) == 8
        assert len(served) >= 2
        assert refused
        assert all((error.reason, error.retryable) == ("OVERLOADED", True) for error in refused)
        assert (await client.upscale(lr_720p)).width == 3840
    small.stop()


async def test_what_cannot_be_done_in_time_is_refused_at_once(gateway: GatewayProcess, lr_720p: Pixels) -> None:
    """Large frames keep the only executor busy; a small one is given half of a large one's time, on any machine."""

    async def send_large_frames(client: AsyncUpscaleClient) -> None:
        while True:
            assert (await client.upscale(lr_720p)).width == 3840

    async with AsyncUpscaleClient(gateway.address) as client:
        await client.upscale(FRAME, scale=3)
        large_s = (await client.upscale(lr_720p)).stages_s["infer"]
        busy = [asyncio.create_task(send_large_frames(client)) for _ in range(4)]
        refused: list[OverloadedError] = []
        refusals_s: list[float] = []
        for within in ("budget_s", "timeout_s") * 20:
            await asyncio.sleep(large_s / 4)
            began = time.monotonic()
            options: dict[str, Any] = {within: large_s / 2}
            answer = (await asyncio.gather(client.upscale(FRAME, scale=3, **options), return_exceptions=True))[0]
            if isinstance(answer, OverloadedError):
                refused.append(answer)
                refusals_s.append(time.monotonic() - began)
        assert len(refused) >= 2
        assert not any(task.done() for task in busy), "large frames fail, too"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
    assert statistics.median(refusals_s) < large_s / 2
    for error in refused:
        assert "the answer would be there in" in str(error)
        assert error.reason == "OVERLOADED"
        assert error.retry_after_s
        assert error.retry_after_s > 0


def test_a_budget_that_no_idle_service_could_meet_is_told_apart(client: UpscaleClient, lr_720p: Pixels) -> None:
    client.upscale(lr_720p)
    with pytest.raises(BudgetTooSmallError, match=r"runet_x3_clean takes [0-9.]+ ms for a frame of 1280x720") as caught:
        client.upscale(lr_720p, budget_s=0.02)
    assert (caught.value.reason, caught.value.retry_after_s) == ("BUDGET_TOO_SMALL", None)


async def test_callers_who_leave_leak_no_slot(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    small = start_gateway(triton.url, max_inflight_frames=3)
    file = io.BytesIO()
    Image.fromarray(lr_720p).save(file, "PNG")
    async with AsyncUpscaleClient(small.address) as client:
        for delay in (0.0, 0.02, 0.1, 0.3, 0.6):
            frames = (lr_720p, file.getvalue(), lr_720p)
            tasks = [asyncio.create_task(client.upscale(frame, output="webp")) for frame in frames]
            await asyncio.sleep(delay)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        deadline = time.monotonic() + 20
        while True:  # what was in a batch or in a thread ends first
            results = await asyncio.gather(*(client.upscale(FRAME) for _ in range(3)), return_exceptions=True)
            if all(isinstance(result, Upscaled) for result in results):
                break
            assert time.monotonic() < deadline, results
            await asyncio.sleep(0.1)
    small.stop()


def test_a_port_that_is_taken_is_told(
    gateway: GatewayProcess, triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    with pytest.raises(LocalStackError, match=f"port {gateway.port} is taken: set UPSCALE_PORT"):
        start_gateway(triton.url, port=gateway.port)
    for flag, port in (("--port", gateway.port), ("--metrics-port", gateway.metrics_port)):
        command = [
            sys.executable,
            "-m",
            "service",
            "--host=127.0.0.1",
            "--port=0",
            "--metrics-port=0",
            f"{flag}={port}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert f"service: cannot listen on 127.0.0.1:{port}" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
