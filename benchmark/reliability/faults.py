"""What is done to the service while it is under load, and which errors its frames may fail with meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import struct
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image
from tritonclient.grpc import InferenceServerClient

from benchmark.reliability.service import Service
from deploy.local import ROOT
from upscale_client import AsyncUpscaleClient, UpscaleError
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.v1.upscale_pb2_grpc import UpscaleServiceStub

_FRAME = np.zeros((270, 480, 3), np.uint8)
_NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_ROUNDS = 8


@dataclass
class Report:
    """How a fault went."""

    restored_at: float | None = None
    """When what was broken worked again, on `time.monotonic`'s clock; None if nothing of the service's was broken."""
    unexpected: tuple[str, ...] = ()
    """Wrong answers to those who attacked."""


Inject = Callable[[Service], Awaitable[Report]]


@dataclass(frozen=True)
class Fault:
    """One way to break it."""

    name: str
    inject: Inject
    allowed: frozenset[str] = frozenset()
    """gRPC codes that frames of the load may fail with."""
    settings: tuple[tuple[str, object], ...] = ()
    """Of the gateway, where they differ."""
    keeps: frozenset[str] = frozenset()
    """What may be left over, for docs/architecture.md says so."""
    own_shared_memory: str = ""
    """The size of a /dev/shm of the gateway's own; "": the machine's."""


async def _kill_triton(service: Service) -> Report:
    service.triton.kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(service.triton.start)
    return Report(time.monotonic())


async def _hang_triton(service: Service) -> Report:
    with service.triton.hanging():
        await asyncio.sleep(4)
    return Report(time.monotonic())


async def _unload_a_model(service: Service) -> Report:
    triton: Any = InferenceServerClient(service.triton.url)
    try:
        await asyncio.to_thread(triton.unload_model, "runet_x2_clean")
        await asyncio.sleep(1.5)
        await asyncio.to_thread(triton.load_model, "runet_x2_clean")
        return Report(time.monotonic())
    finally:
        triton.close()


async def _kill_a_worker(service: Service) -> Report:
    _, *workers = service.processes()
    busiest = max(workers, key=lambda process: process.cpu_times().user)
    busiest.kill()
    deadline = time.monotonic() + 30
    while len(_workers(service)) < len(workers) and time.monotonic() < deadline:  # noqa: ASYNC110 - a process table
        await asyncio.sleep(0.02)
    return Report(time.monotonic())


def _workers(service: Service) -> list[int]:
    return [process.pid for process in service.processes()[1:] if process.status() != "zombie"]


async def _fill_shared_memory(service: Service) -> Report:
    """All of the gateway's /dev/shm; frames of a size that has no memory yet are refused, and the others go on."""
    folder = Path(f"/proc/{service.gateway.pid}/root/dev/shm")
    filler = folder / "filler"
    status = os.statvfs(folder)
    unexpected: list[str] = []
    try:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize)
        async with AsyncUpscaleClient(service.address) as client:
            for side in range(_ROUNDS):
                frame = np.zeros((100 + 10 * side, 160, 3), np.uint8)
                told = await _outcome(client.upscale(frame, scale=2))
                unexpected += [] if told == "RESOURCE_EXHAUSTED" else [f"a new size in full memory: {told}"]
    finally:
        filler.unlink()
    restored_at = time.monotonic()
    async with AsyncUpscaleClient(service.address) as client:
        told = await _outcome(client.upscale(np.zeros((100, 160, 3), np.uint8), scale=2))
        unexpected += [] if told == "OK" else [f"a new size when there was memory again: {told}"]
    return Report(restored_at, tuple(unexpected))


_SENDER = """
import itertools, sys, numpy as np
from upscale_client import UpscaleClient
with UpscaleClient(sys.argv[1]) as client:
    frame = np.zeros((270, 480, 3), np.uint8)
    print("sending", flush=True)
    if sys.argv[2] == "stream":
        for _ in client.stream(itertools.repeat(frame), scale=2, window=4):
            pass
    while True:
        client.upscale(frame, scale=2)
"""


async def _cut_clients(service: Service) -> Report:
    """Clients that are killed in the middle of their frames, and connections that break in the middle of one."""
    for number in range(_ROUNDS):
        way = ("unary", "stream")[number % 2]
        command = [sys.executable, "-c", _SENDER, service.address, way]
        sender = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        assert sender.stdout is not None
        await sender.stdout.readline()
        await asyncio.sleep(0.05 + 0.03 * number)
        with contextlib.suppress(ProcessLookupError):  # it was refused, and ended by itself
            sender.kill()
        await sender.wait()
        with _half_a_frame(service, sent=1000 * number):
            await asyncio.sleep(0.02)
    return Report()


async def _be_slow(service: Service) -> Report:
    """Frames a few bytes at a time, answers that nobody reads, silence, and messages larger than any frame."""
    unexpected: list[str] = []
    with contextlib.ExitStack() as stack:
        dripping = [stack.enter_context(_half_a_frame(service, sent=100)) for _ in range(_ROUNDS)]
        channel = stack.enter_context(grpc.insecure_channel(service.address, options=_NO_LIMIT))
        stub = UpscaleServiceStub(channel)
        too_large = pb.UpscaleRequest(frame=pb.Frame(width=16, height=16, data=bytes(30_000_000)))
        for _ in range(3):
            told = await asyncio.to_thread(_code_of, lambda: stub.Upscale(too_large, timeout=20))
            unexpected += [] if told == "RESOURCE_EXHAUSTED" else [f"a message of 30 MB: {told}"]

        def frames() -> Iterator[pb.UpscaleStreamRequest]:
            yield pb.UpscaleStreamRequest(options=pb.StreamOptions(scale=2, window=4))
            data = _FRAME.tobytes()
            for number in range(200):
                frame = pb.Frame(width=480, height=270, encoding=pb.ENCODING_RGB24, data=data)
                yield pb.UpscaleStreamRequest(sequence=number, frame=frame)

        unread = [stub.UpscaleStream(frames()) for _ in range(3)]
        silent = [stub.UpscaleStream(_silence()) for _ in range(3)]
        for _ in range(8):
            for each in dripping:
                with contextlib.suppress(OSError):
                    each.send(_data_frame(b"\0" * 4, end=False))
            await asyncio.sleep(0.5)
        for call, what, code in [
            *((call, "a session that reads nothing", "RESOURCE_EXHAUSTED") for call in unread),
            *((call, "a session that sends nothing", "DEADLINE_EXCEEDED") for call in silent),
        ]:
            told = await asyncio.to_thread(_code_of, lambda call=call: list(call))
            unexpected += [] if told == code else [f"{what}: {told}"]
        for each in dripping:
            told = await asyncio.to_thread(_grpc_status, each)
            unexpected += [] if told == b"4" else [f"a frame that drips: grpc-status {told.decode() or 'none'}"]
    return Report(unexpected=tuple(unexpected))


def _silence() -> Iterator[pb.UpscaleStreamRequest]:
    yield pb.UpscaleStreamRequest(options=pb.StreamOptions(scale=2))
    time.sleep(12)


async def _send_hostile_pictures(service: Service) -> Report:
    """Bombs, halves, lies and rubbish; each is to be told that it is no frame."""
    unexpected: list[str] = []
    async with AsyncUpscaleClient(service.address) as client:
        for _ in range(_ROUNDS):
            for name, data in _HOSTILE.items():
                told = await _outcome(client.upscale(data, scale=2))
                unexpected += [] if told == "INVALID_ARGUMENT" else [f"{name}: {told}"]
    return Report(unexpected=tuple(unexpected))


async def _skew_deadlines(service: Service) -> Report:
    """Budgets and deadlines that are over, absurd or no time at all."""
    unexpected: list[str] = []
    channel = grpc.aio.insecure_channel(service.address)
    stub = UpscaleServiceStub(channel)
    frame = pb.Frame(width=64, height=48, encoding=pb.ENCODING_RGB24, data=bytes(64 * 48 * 3))
    try:
        for _ in range(_ROUNDS):
            for (seconds, nanos), codes in _BUDGETS.items():
                request = pb.UpscaleRequest(frame=frame, scale=2)
                request.budget.seconds, request.budget.nanos = seconds, nanos
                told = await _outcome(stub.Upscale(request, timeout=20))
                unexpected += [] if told in codes else [f"a budget of {seconds} s and {nanos} ns: {told}"]
            for timeout_s in (1e-9, 1e-4, 0.002):
                told = await _outcome(stub.Upscale(pb.UpscaleRequest(frame=frame, scale=2), timeout=timeout_s))
                good = {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
                unexpected += [] if told in good else [f"a deadline of {timeout_s:g} s: {told}"]
    finally:
        await channel.close()
    return Report(unexpected=tuple(unexpected))


_BUDGETS: dict[tuple[int, int], set[str]] = {
    (0, 0): {"INVALID_ARGUMENT"},
    (-1, 0): {"INVALID_ARGUMENT"},
    (0, -1): {"INVALID_ARGUMENT"},
    (-(2**63), 0): {"INVALID_ARGUMENT"},
    (0, 1): {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"},
    (0, 1000): {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"},
    (0, 2**31 - 1): {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"},
    (2**63 - 1, 0): {"OK", "INVALID_ARGUMENT"},
    (10**9, 0): {"OK", "INVALID_ARGUMENT"},
}


def _png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and which has none of them."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def _saved(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


_HOSTILE = {
    "a PNG of 60000x60000": _png_of(60_000, 60_000),
    "a PNG of 2^31 columns": _png_of(2**31 - 1, 1),
    "a PNG of nothing": _png_of(0, 0),
    "a PNG without its pixels": _png_of(64, 48),
    **{f"half a {kind}": _saved(kind)[: len(_saved(kind)) // 2] for kind in ("PNG", "JPEG", "WEBP")},
    "a PNG's first bytes": b"\x89PNG\r\n\x1a\n",
    "a JPEG's first bytes": b"\xff\xd8\xff\xe0",
    "a WebP's first bytes": b"RIFF\x10\0\0\0WEBPVP8 ",
    "a BMP": _saved("BMP"),
    "rubbish": np.random.default_rng(1).bytes(5000),
}


async def _outcome(asked: Awaitable[object]) -> str:
    """The code of what came of it."""
    try:
        await asked
    except UpscaleError as error:
        return error.code.name
    except ValueError:  # the SDK sees that it is no picture, and does not send it
        return "INVALID_ARGUMENT"
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def _code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


@contextlib.contextmanager
def _half_a_frame(service: Service, sent: int) -> Generator[socket.socket]:
    """A connection by which a call of Upscale has begun, and so many bytes of a frame have come."""
    with socket.create_connection(("127.0.0.1", service.gateway.port), timeout=10) as connection:
        headers = b"".join(
            b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/upscale.v1.UpscaleService/Upscale"),
                (b":authority", b"localhost"),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
            )
        )
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _http2_frame(4, 0, 0, b""))
        connection.sendall(_http2_frame(1, 4, 1, headers))  # HEADERS, and they end here
        message = b"\0" + struct.pack(">I", _FRAME.nbytes) + bytes(sent)
        connection.sendall(_data_frame(message, end=False))
        yield connection


def _data_frame(body: bytes, *, end: bool) -> bytes:
    return _http2_frame(0, int(end), 1, body)


def _http2_frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def _grpc_status(connection: socket.socket) -> bytes:
    """The status that the connection's call ended with; b"" if it did not."""
    connection.settimeout(5)
    came = b""
    with contextlib.suppress(OSError):
        while part := connection.recv(65536):
            came += part
            if b"grpc-status" in came:
                break
    # As gRPC writes it: a literal whose value is one or two digits, behind its length.
    _, _, rest = came.partition(b"grpc-status")
    return rest[1 : 1 + rest[0]] if rest else b""


_GONE = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})
_BUSY = frozenset({"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})
"""What a frame with a budget may be told on a machine that is busy with an attack."""


async def _nothing(_: Service) -> Report:
    return Report()


FAULTS = (
    Fault("nothing", _nothing, _BUSY),
    Fault("Triton killed and started again", _kill_triton, _GONE),
    # That Triton may still write where it gave no answer: it is never told to unmap that.
    Fault("Triton hangs for 4 s (SIGSTOP)", _hang_triton, _GONE, keeps=frozenset({"triton_orphans"})),
    Fault("a model unloaded and loaded again", _unload_a_model, _GONE),
    Fault("a gateway worker of two killed", _kill_a_worker, _GONE, (("workers", 2),)),
    Fault("/dev/shm full", _fill_shared_memory, _BUSY, own_shared_memory="128m"),
    Fault("clients killed and cut off mid-frame", _cut_clients, _BUSY),
    Fault("slow, silent and oversized clients", _be_slow, _BUSY),
    Fault("hostile pictures", _send_hostile_pictures, _BUSY),
    Fault("absurd budgets and deadlines", _skew_deadlines, _BUSY),
)
