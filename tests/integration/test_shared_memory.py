"""Clients' own memory, read and written by the real Triton."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess
from service.frames import SHARED_MEMORY
from tests.conftest import StartGateway, metric, until_nothing_is_held
from upscale_client import (
    AsyncUpscaleClient,
    InvalidRequestError,
    NotOfferedError,
    UnavailableError,
    UpscaleClient,
)
from upscale_client._shared import SharedRegion
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

Pixels = NDArray[np.uint8]
FRAMES = [np.random.default_rng(seed).integers(0, 256, (90, 160, 3), dtype=np.uint8) for seed in range(3)]


def client_files() -> set[str]:
    return {path.name for path in SHARED_MEMORY.glob("upscale-client-*")}


def test_frames_are_enlarged_where_they_lie(client: UpscaleClient) -> None:
    expected = [client.upscale(frame, scale=2).array for frame in FRAMES]
    before = client_files()
    with client.shared_frames(160, 90, scale=2, count=3) as shared:
        for place, frame in zip(shared.inputs, FRAMES, strict=True):
            place[:] = frame
        for index in (2, 0, 1):
            answer = shared.upscale(index)
            assert (answer.width, answer.height, len(answer.data)) == (320, 180, 0)
        for output, picture in zip(shared.outputs, expected, strict=True):
            assert np.array_equal(output, picture)
    assert client_files() == before


async def test_neighbours_make_a_batch_without_a_copy(gateway: GatewayProcess, client: UpscaleClient) -> None:
    expected = [client.upscale(frame, scale=2).array for frame in FRAMES]
    async with (
        AsyncUpscaleClient(gateway.address) as asynchronous,
        await asynchronous.shared_frames(160, 90, scale=2, count=3) as shared,
    ):
        for place, frame in zip(shared.inputs, FRAMES, strict=True):
            place[:] = frame
        sizes: set[int] = set()
        deadline = time.monotonic() + 60
        while not sizes & {2, 3} and time.monotonic() < deadline:
            answers = await asyncio.gather(*(shared.upscale(index) for index in range(3)))
            sizes |= {answer.batch_frames for answer in answers}
            assert all(np.array_equal(*pair) for pair in zip(shared.outputs, expected, strict=True))
    assert sizes & {2, 3}, "they never rode together"


@pytest.mark.parametrize("where", ["frame", "answer"])
def test_one_end_may_be_shared_and_the_other_sent(gateway: GatewayProcess, client: UpscaleClient, where: str) -> None:
    expected = client.upscale(FRAMES[0], scale=2).array
    name = f"upscale-client-{os.urandom(16).hex()}"
    path = SHARED_MEMORY / name
    path.touch(0o600)
    size = FRAMES[0].nbytes + expected.nbytes
    path.write_bytes(FRAMES[0].tobytes() + bytes(expected.nbytes))
    with grpc.insecure_channel(gateway.address) as channel:
        stub = UpscaleServiceStub(channel)
        call = stub.ShareRegion(pb.ShareRegionRequest(name=name, byte_size=size, proof=FRAMES[0].tobytes()[:32]))
        handle = next(call).handle
        frame = pb.Frame(width=160, height=90, encoding=pb.ENCODING_RGB24)
        request = pb.UpscaleRequest(scale=2, frame=frame)
        if where == "frame":
            request.frame.region.handle = handle
            assert stub.Upscale(request).frame.data == expected.tobytes()
        else:
            request.frame.data = FRAMES[0].tobytes()
            request.answer.handle, request.answer.offset = handle, FRAMES[0].nbytes
            assert stub.Upscale(request).frame.region.offset == FRAMES[0].nbytes
            assert path.read_bytes()[FRAMES[0].nbytes :] == expected.tobytes()
        call.cancel()


def test_a_stranger_reaches_no_other_clients_memory(gateway: GatewayProcess, client: UpscaleClient) -> None:
    with client.shared_frames(160, 90, scale=2) as shared, grpc.insecure_channel(gateway.address) as channel:
        (name,) = client_files()
        stub = UpscaleServiceStub(channel)
        size = (SHARED_MEMORY / name).stat().st_size
        with pytest.raises(grpc.RpcError, match="is shared already"):
            next(stub.ShareRegion(pb.ShareRegionRequest(name=name, byte_size=size, proof=bytes(32))))
        for handle in (name, "", "0" * 32):
            frame = pb.Frame(width=160, height=90, encoding=pb.ENCODING_RGB24, region=pb.RegionRef(handle=handle))
            with pytest.raises(grpc.RpcError, match="not one that this service has given out"):
                stub.Upscale(pb.UpscaleRequest(frame=frame))
        shared.upscale()


def test_a_region_cut_short_harms_nobody(gateway: GatewayProcess, client: UpscaleClient) -> None:
    with client.shared_frames(160, 90, scale=2) as shared:
        shared.upscale()
        (name,) = client_files()
        os.truncate(SHARED_MEMORY / name, 100)
        with pytest.raises(InvalidRequestError, match="the region has 100 bytes now"):
            shared.upscale()
    client.upscale(FRAMES[0])


def test_a_region_cut_short_costs_no_slot_if_its_frame_is_copied_out_of_it(gateway: GatewayProcess) -> None:
    region = SharedRegion(160, 90, 2, "rgb24", 1)
    with grpc.insecure_channel(gateway.address) as channel:
        stub = UpscaleServiceStub(channel)
        sharing = stub.ShareRegion(region.request())
        handle = next(sharing).handle
        os.truncate(SHARED_MEMORY / region.name, 100)
        frame = pb.Frame(width=160, height=90, encoding=pb.ENCODING_RGB24, region=pb.RegionRef(handle=handle))
        with pytest.raises(grpc.RpcError, match="the region has 100 bytes now"):
            stub.Upscale(pb.UpscaleRequest(frame=frame, scale=2))
        sharing.cancel()
    region.close()
    until_nothing_is_held(gateway)


def test_a_client_that_dies_is_cleaned_up_after(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url)
    program = textwrap.dedent("""
        import sys, time
        from upscale_client import UpscaleClient
        shared = UpscaleClient(sys.argv[1]).shared_frames(160, 90, scale=2)
        shared.upscale()
        print("ready", flush=True)
        time.sleep(60)
    """)
    before = client_files()
    with subprocess.Popen([sys.executable, "-c", program, gateway.address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(client_files() - before) == 1
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while client_files() - before or metric(gateway, "upscale_client_regions"):
        assert time.monotonic() < deadline, "the dead client's memory is still there"
        time.sleep(0.05)
    gateway.stop()


def test_a_gateway_that_stops_lets_the_client_know(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url)
    with UpscaleClient(gateway.address) as client, client.shared_frames(160, 90, scale=2) as shared:
        shared.upscale()
        began = time.monotonic()
        gateway.stop()
        assert time.monotonic() - began < 10, "it waited for the region's client"
        with pytest.raises(UnavailableError):
            shared.upscale()


def test_sharing_can_be_turned_off(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, client_shared_memory=False)
    before = client_files()
    with (
        UpscaleClient(gateway.address) as client,
        pytest.raises(NotOfferedError, match="client_shared_memory is off"),
    ):
        client.shared_frames(160, 90, scale=2)
    assert client_files() == before
    gateway.stop()
