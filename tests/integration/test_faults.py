"""What breaks in the night: Triton killed, hung, out of a model; the gateway stopped under load."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import EmbeddedTritonError
from deploy.local import GatewayProcess
from service.frames import SHARED_MEMORY
from tests.conftest import StartGateway, metric
from upscale_client import AsyncUpscaleClient, InternalError, UnavailableError, UpscaleClient, Upscaled, UpscaleError

Pixels = NDArray[np.uint8]
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


def health(gateway: GatewayProcess) -> int:
    with grpc.insecure_channel(gateway.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=2).status  # pyright: ignore[reportAttributeAccessIssue]


def until_served(client: UpscaleClient, timeout_s: float = 10) -> float:
    """Seconds until a frame is answered again; meanwhile only retryable errors are allowed."""
    began = time.monotonic()
    while True:
        try:
            client.upscale(FRAME)
            return time.monotonic() - began
        except UpscaleError as error:
            if not error.retryable or time.monotonic() - began > timeout_s:
                raise
        time.sleep(0.05)


async def test_a_killed_triton_fails_its_frames_only_and_is_used_again_on_its_return(
    own_triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    gateway = start_gateway(own_triton.url)
    async with AsyncUpscaleClient(gateway.address) as client:
        before = (await client.upscale(FRAME)).array
        in_flight = [asyncio.create_task(client.upscale(lr_720p)) for _ in range(4)]
        await asyncio.sleep(0.2)
        own_triton.kill()
        results = await asyncio.gather(*in_flight, return_exceptions=True)
        assert all(isinstance(result, (UnavailableError, Upscaled)) for result in results), results
        assert any(isinstance(result, UnavailableError) for result in results)

    with UpscaleClient(gateway.address) as client:
        began = time.monotonic()
        with pytest.raises(UnavailableError) as caught:
            client.upscale(FRAME)
        assert caught.value.reason == "BACKEND_UNAVAILABLE"
        assert time.monotonic() - began < 1, "a gateway that knows Triton is gone says so at once"
        await asyncio.sleep(1)
        assert health(gateway) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert metric(gateway, "upscale_triton_up") == 0

        own_triton.start()
        assert until_served(client) < 2, "back within two seconds of Triton's return"
        assert np.array_equal(client.upscale(FRAME).array, before)
        assert health(gateway) == health_pb2.HealthCheckResponse.SERVING
        await asyncio.sleep(0.5)
        assert metric(gateway, 'upscale_slots{state="used"}') == metric(gateway, 'upscale_slots{state="retired"}') == 0
    gateway.stop()


async def test_a_hung_triton_is_given_up_and_its_late_answers_harm_nobody(
    own_triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    gateway = start_gateway(own_triton.url, infer_timeout_s=1.0)
    async with AsyncUpscaleClient(gateway.address) as client:
        white = np.full_like(lr_720p, 255)
        await client.upscale(white)
        with own_triton.hanging():
            began = time.monotonic()
            with pytest.raises(UnavailableError, match=r"gave no answer|is not there|is not ready"):
                await client.upscale(white)
            assert time.monotonic() - began < 4
        deadline = time.monotonic() + 10
        while True:
            try:
                answer = await client.upscale(np.zeros_like(lr_720p))
                break
            except UnavailableError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        assert int(answer.array.max()) <= 1, "a white frame's late answer was written over a black frame's"
    gateway.stop()


def test_a_model_that_is_unloaded_is_unavailable_until_it_is_loaded(
    own_triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(own_triton.url)
    direct = InferenceServerClient(own_triton.url)
    with UpscaleClient(gateway.address) as client:
        direct.unload_model("runet_x2_clean")
        time.sleep(1)  # the gateway looks twice a second
        with pytest.raises(UnavailableError, match="runet_x2_clean is not ready"):
            client.upscale(FRAME, scale=2)
        assert client.upscale(FRAME, scale=3).variant == "runet_x3_clean"
        assert {served.name: served.ready for served in client.list_models()} == {
            "runet_x2_clean": False,
            "runet_x3_clean": True,
        }
        direct.load_model("runet_x2_clean")
        time.sleep(1)
        assert client.upscale(FRAME, scale=2).variant == "runet_x2_clean"
    gateway.stop()


async def test_sigterm_under_load_finishes_what_is_in_flight(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    regions = set(SHARED_MEMORY.glob("upscale-frames-*"))
    gateway = start_gateway(triton.url)
    async with AsyncUpscaleClient(gateway.address) as client, grpc.aio.insecure_channel(gateway.address) as channel:
        watch: Any = health_pb2_grpc.HealthStub(channel)
        statuses = watch.Watch(health_pb2.HealthCheckRequest())
        assert (await statuses.read()).status == health_pb2.HealthCheckResponse.SERVING
        accepted = [asyncio.create_task(client.upscale(lr_720p)) for _ in range(6)]
        await asyncio.sleep(0.4)
        gateway.terminate()
        assert (await statuses.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await asyncio.sleep(0.1)
        late = await asyncio.gather(client.upscale(FRAME), return_exceptions=True)
        assert isinstance(late[0], UnavailableError), late
        answers = await asyncio.gather(*accepted)
        assert all(answer.width == 3840 for answer in answers)
        assert await asyncio.to_thread(gateway.wait) == 0
    assert set(SHARED_MEMORY.glob("upscale-frames-*")) <= regions


@contextlib.asynccontextmanager
async def slow_link(address: str, bytes_per_s: float) -> AsyncGenerator[str]:
    """The address of a relay to `address` that brings back so much at most."""
    host, _, port = address.rpartition(":")

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, bytes_per_s: float) -> None:
        with contextlib.closing(sink), contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
                await asyncio.sleep(len(data) / bytes_per_s)

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, towards = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, towards, 1e9), pump(upstream, writer, bytes_per_s))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as relay:
        yield f"127.0.0.1:{relay.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("in_session", [False, True])
async def test_the_last_answers_come_over_a_slow_link(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels, in_session: bool
) -> None:
    gateway = start_gateway(triton.url)
    async with slow_link(gateway.address, 20e6) as address, AsyncUpscaleClient(address) as client:

        async def frames() -> AsyncGenerator[Pixels]:
            yield lr_720p
            await asyncio.Event().wait()

        async def upscale() -> Pixels:
            if not in_session:
                return (await client.upscale(lr_720p)).array
            async with client.stream(frames()) as session:
                return (await anext(session)).array

        answering = asyncio.create_task(upscale())
        await asyncio.sleep(0.4)
        gateway.terminate()
        assert (await answering).shape == (2160, 3840, 3)
        assert await asyncio.to_thread(gateway.wait) == 0


async def test_the_last_answer_of_an_old_connection_comes_over_a_slow_link(
    triton: EmbeddedTriton, start_gateway: StartGateway, lr_720p: Pixels
) -> None:
    gateway = start_gateway(triton.url, connection_age_s=0.5)
    async with slow_link(gateway.address, 20e6) as address, AsyncUpscaleClient(address) as client:
        assert [(await client.upscale(lr_720p)).width for _ in range(3)] == [3840] * 3
    gateway.stop()


async def test_a_gateway_that_starts_first_waits_for_triton(
    own_triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    own_triton.stop()
    starting = asyncio.create_task(asyncio.to_thread(start_gateway, own_triton.url))
    await asyncio.sleep(2)
    assert not starting.done(), "it must not call itself ready without Triton"
    await asyncio.to_thread(own_triton.start)
    gateway = await starting
    async with AsyncUpscaleClient(gateway.address) as client:
        assert (await client.upscale(FRAME)).width == 480
    gateway.stop()


def test_a_repository_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedTritonError, match=r"no models in .*: run 'python export/ --model runet' first"):
        EmbeddedTriton(tmp_path).start()


def test_a_broken_model_is_told_from_tritons_log(repository: Path, tmp_path: Path) -> None:
    variant = tmp_path / "runet_x2_clean"
    (variant / "1").mkdir(parents=True)
    (variant / "1" / "model.onnx").write_bytes(b"not a model")
    (variant / "config.pbtxt").write_text((repository / "runet_x2_clean" / "config.pbtxt").read_text())
    with pytest.raises(EmbeddedTritonError, match=r"(?s)before it was ready.*failed to load 'runet_x2_clean'"):
        EmbeddedTriton(tmp_path).start()


def test_a_model_that_fails_is_our_fault_not_the_clients(
    repository: Path, tmp_path: Path, start_gateway: StartGateway
) -> None:
    """The x3 network under the x2 variant's name answers with the wrong shape, which no slot can hold."""
    variant = tmp_path / "runet_x2_clean"
    (variant / "1").mkdir(parents=True)
    (variant / "1" / "model.onnx").write_bytes((repository / "runet_x3_clean" / "1" / "model.onnx").read_bytes())
    (variant / "config.pbtxt").write_text((repository / "runet_x2_clean" / "config.pbtxt").read_text())
    with EmbeddedTriton(tmp_path) as triton:
        gateway = start_gateway(triton.url)
        with UpscaleClient(gateway.address) as client, pytest.raises(InternalError) as caught:
            client.upscale(FRAME)
        assert caught.value.reason == "INTERNAL"
        assert "the server's log says why" in str(caught.value)
        gateway.stop()
