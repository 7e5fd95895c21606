"""Every way to have a frame enlarged, as one kind of thing: frames go in, answers come out in their order.

What the SDK offers is used here and nowhere else in this package.
"""

from __future__ import annotations

import http.client
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import shared_memory

from benchmark.errors import BenchmarkError
from benchmark.serving.task import MARK_BYTES, SCALE, Task
from upscale_client import OverloadedError, PixelFormat, UpscaleClient

Pixels = NDArray[np.uint8]
Ask = Callable[[Iterable[Pixels]], Iterator[Pixels]]
"""Frames to answers. An answer is good until the next one is asked for."""

Refused = OverloadedError
"""What a client gets when the gateway has no room for a frame."""

WINDOW = 2
"""Frames of a stream in flight."""
_STREAM_TURN = 4
_NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_region_numbers = itertools.count()


@dataclass(frozen=True)
class Way:
    """One way in, for one model."""

    name: str
    label: str
    model: str
    server: str
    """Who answers: gateway, triton, in_process, or a peer."""
    connect: Callable[[], AbstractContextManager[Ask]]
    """One client, in the process that calls it."""
    pixel_format: str = "rgb24"
    turn: int = 1
    """Frames in one turn: a stream is opened for a few."""


def gateway_ways(address: str, task: Task) -> list[Way]:
    """The ways through the gateway."""
    rgb: PixelFormat = "rgb24"
    nv12: PixelFormat = "nv12"
    model = task.model
    unary, stream, shared = (partial(each, address, task) for each in (_unary, _stream, _shared))
    return [
        Way("gateway_unary_rgb24", "gateway, RGB24", model, "gateway", partial(unary, rgb)),
        Way("gateway_unary_nv12", "gateway, NV12", model, "gateway", partial(unary, nv12), nv12),
        Way("gateway_stream_rgb24", "gateway, stream", model, "gateway", partial(stream, rgb), turn=_STREAM_TURN),
        Way("gateway_shm_rgb24", "gateway, shared memory", model, "gateway", partial(shared, rgb)),
        Way("gateway_shm_nv12", "gateway, shared memory, NV12", model, "gateway", partial(shared, nv12), nv12),
    ]


def triton_ways(url: str, task: Task) -> list[Way]:
    """Straight to Triton, by tritonclient alone."""
    return [
        Way("triton_bytes", "tritonclient, bytes", task.model, "triton", partial(_triton_bytes, url, task)),
        Way("triton_shm", "tritonclient, shared memory", task.model, "triton", partial(_triton_shared, url, task)),
    ]


def triton_version(url: str) -> str:
    """What the server says it is."""
    with _triton(url) as client:
        return client.get_server_metadata().version


def peer_way(name: str, label: str, model: str, server: str, port: int) -> Way:
    """RGB bytes to a peer and back, over HTTP."""
    return Way(name, label, model, server, partial(_http, name, port))


def identity_in_process() -> Way:
    """The identity function, called."""
    return Way("in_process", "called in-process", "identity", "in_process", partial(nullcontext, _identity))


def onnx_in_process(path: Path, threads: int) -> Way:
    """ONNX Runtime in the client's process, one session for all of it."""
    return Way("in_process", "ONNX Runtime in-process", "runet", "in_process", partial(_onnx, path, threads))


def _identity(frames: Iterable[Pixels]) -> Iterator[Pixels]:
    for frame in frames:
        answer = np.empty((frame.shape[0] * SCALE, frame.shape[1] * SCALE, *frame.shape[2:]), np.uint8)
        answer.reshape(-1)[:MARK_BYTES] = frame.reshape(-1)[:MARK_BYTES]
        yield answer


@cache
def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def _onnx(path: Path, threads: int) -> Generator[Ask]:
    session = _session(path, threads)
    name = session.get_inputs()[0].name
    yield lambda frames: (session.run(None, {name: frame[None]})[0][0] for frame in frames)


@contextmanager
def _unary(address: str, task: Task, pixel_format: PixelFormat) -> Generator[Ask]:
    with UpscaleClient(address) as client:
        yield lambda frames: (
            client.upscale(
                frame, scale=task.scale, model=task.model, profile=task.profile, pixel_format=pixel_format
            ).array
            for frame in frames
        )


@contextmanager
def _stream(address: str, task: Task, pixel_format: PixelFormat) -> Generator[Ask]:
    with UpscaleClient(address) as client:
        yield lambda frames: (
            answer.array
            for answer in client.stream(
                frames,
                model=task.model,
                scale=task.scale,
                profile=task.profile,
                pixel_format=pixel_format,
                window=WINDOW,
            )
        )


@contextmanager
def _shared(address: str, task: Task, pixel_format: PixelFormat) -> Generator[Ask]:
    def upscale(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        for frame in frames:
            shared.inputs[0][:] = frame
            shared.upscale()
            yield shared.outputs[0]

    with (
        UpscaleClient(address) as client,
        client.shared_frames(
            task.width,
            task.height,
            scale=task.scale,
            model=task.model,
            profile=task.profile,
            pixel_format=pixel_format,
        ) as shared,
    ):
        yield upscale


@contextmanager
def _triton(url: str) -> Generator[Any]:
    client: Any = InferenceServerClient(url, channel_args=_NO_LIMIT)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _triton_bytes(url: str, task: Task) -> Generator[Ask]:
    def upscale(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        for frame in frames:
            sent = InferInput("lr_frames", [1, *frame.shape], "UINT8")
            sent.set_data_from_numpy(frame[None])
            yield client.infer(task.variant(), [sent]).as_numpy("sr_frames")[0]

    with _triton(url) as client:
        yield upscale


@contextmanager
def _triton_shared(url: str, task: Task) -> Generator[Ask]:
    taken = task.height * task.width * 3
    given = taken * task.scale**2
    name = f"upscale-benchmark-{os.getpid()}-{next(_region_numbers)}"

    def upscale(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        for frame in frames:
            shared_memory.set_shared_memory_region(region, [frame])
            sent = InferInput("lr_frames", [1, *frame.shape], "UINT8")
            sent.set_shared_memory(name, taken)
            wanted = InferRequestedOutput("sr_frames")
            wanted.set_shared_memory(name, given, taken)
            client.infer(task.variant(), [sent], outputs=[wanted])
            shape = (task.height * task.scale, task.width * task.scale, 3)
            yield shared_memory.get_contents_as_numpy(region, np.uint8, shape, taken)

    with _triton(url) as client:
        region: Any = shared_memory.create_shared_memory_region(name, f"/{name}", taken + given)
        try:
            client.register_system_shared_memory(name, f"/{name}", taken + given)
            yield upscale
            client.unregister_system_shared_memory(name)
        finally:
            shared_memory.destroy_shared_memory_region(region)


@contextmanager
def _http(name: str, port: int) -> Generator[Ask]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(frame: Pixels) -> http.client.HTTPResponse:
        connection.request("POST", "/predict", frame.data.cast("B"), {"Content-Type": "application/octet-stream"})
        return connection.getresponse()

    def upscale(frames: Iterable[Pixels]) -> Iterator[Pixels]:
        for frame in frames:
            try:
                response = post(frame)
            except (ConnectionError, http.client.HTTPException):
                # The server closes a connection that idles while others have their turns.
                connection.close()
                response = post(frame)
            # As fast as Python's own client gets: into memory that is there already.
            answer = np.empty((frame.shape[0] * SCALE, frame.shape[1] * SCALE, 3), np.uint8)
            left = answer.data.cast("B")
            while left and (got := response.readinto(left)):
                left = left[got:]
            if response.status != http.HTTPStatus.OK or left or response.read():
                raise BenchmarkError(f"{name} answered with status {response.status} and not with a frame")
            yield answer

    try:
        yield upscale
    finally:
        connection.close()
