"""Sessions through the real gateway and the real Triton."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess
from tests.conftest import StartGateway, until_nothing_is_held
from upscale_client import (
    AsyncUpscaleClient,
    InvalidRequestError,
    OverloadedError,
    StreamFrame,
    StreamSummary,
    UnavailableError,
    UpscaleClient,
    UpscaleError,
)

Pixels = NDArray[np.uint8]
FRAMES = [np.random.default_rng(seed).integers(0, 256, (90, 160, 3), dtype=np.uint8) for seed in range(4)]


def test_a_session_answers_what_single_calls_answer_in_order(client: UpscaleClient) -> None:
    expected = [client.upscale(frame).array for frame in FRAMES]
    stream = client.stream([*FRAMES, *FRAMES])
    answers = list(stream)
    assert [answer.sequence for answer in answers] == list(range(8))
    for answer, picture in zip(answers, expected * 2, strict=True):
        assert np.array_equal(answer.array, picture)
        assert answer.result().variant == "runet_x3_clean"
    assert stream.summary() == StreamSummary(answered=8, failed=0, dropped=0)


def test_numbers_and_times_are_the_clients_own(client: UpscaleClient) -> None:
    frames = [StreamFrame(FRAMES[0], sequence=2**63 + number, presentation_time=-number) for number in range(3)]
    answers = list(client.stream(frames))
    assert [(answer.sequence, answer.presentation_time) for answer in answers] == [
        (frame.sequence, frame.presentation_time) for frame in frames
    ]


def test_a_bad_frame_among_good_ones(client: UpscaleClient) -> None:
    stream = client.stream([FRAMES[0], FRAMES[1][:3], FRAMES[2]])
    answers = list(stream)
    assert [answer.error is None for answer in answers] == [True, False, True]
    with pytest.raises(InvalidRequestError, match=r"frame.height is 3; the least is 16"):
        answers[1].result()
    assert stream.summary() == StreamSummary(answered=2, failed=1, dropped=0)


def test_a_session_with_wrong_options_fails_as_a_whole(client: UpscaleClient) -> None:
    with pytest.raises(InvalidRequestError, match=r"options.window is 99; accepted are 1 to 4"):
        list(client.stream(FRAMES, window=99))


def test_live_play_drops_what_is_overtaken(client: UpscaleClient) -> None:
    def hurried() -> Iterator[Pixels]:
        for number in range(60):
            yield FRAMES[number % 4]
            time.sleep(0.002)

    stream = client.stream(hurried(), window=1, drop="latest_wins")
    answers = []
    for answer in stream:
        answers.append(answer)
        time.sleep(0.03)  # a reader who cannot keep up
    summary = stream.summary()
    numbers = [answer.sequence for answer in answers]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59, "the newest is never dropped"
    assert summary.dropped == 60 - len(answers) > 0
    assert sum(answer.dropped for answer in answers) == summary.dropped


async def test_asyncio_sessions_are_the_same(client: UpscaleClient, gateway: GatewayProcess) -> None:
    expected = [client.upscale(frame).array for frame in FRAMES]

    async def frames():
        for frame in FRAMES:
            yield frame

    async with AsyncUpscaleClient(gateway.address) as asynchronous:
        stream = asynchronous.stream(frames())
        answers = [answer async for answer in stream]
        assert (await stream.summary()).answered == 4
    assert all(np.array_equal(answer.array, picture) for answer, picture in zip(answers, expected, strict=True))


def test_a_client_that_leaves_loses_no_slot(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url)
    with UpscaleClient(gateway.address) as client:
        for number in range(12):
            with client.stream(FRAMES * 5, window=4) as stream:
                for _ in range(number % 5):
                    next(iter(stream))
        client.upscale(FRAMES[0])
        until_nothing_is_held(gateway)
    with UpscaleClient(gateway.address) as client:  # leaves without a word
        stream = client.stream(FRAMES * 5, window=4)
        next(iter(stream))
    until_nothing_is_held(gateway)
    gateway.stop()


def test_a_stopping_gateway_answers_what_it_took_and_says_so(
    triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(triton.url)
    sent = threading.Event()

    def endless() -> Iterator[Pixels]:
        while not sent.is_set():
            yield FRAMES[0]
            time.sleep(0.01)

    with UpscaleClient(gateway.address) as client:
        stream = client.stream(endless())
        for _ in range(3):
            next(stream).result()
        stopping = threading.Thread(target=gateway.stop)
        began = time.monotonic()
        stopping.start()
        with pytest.raises(UnavailableError, match="the frames it took are answered") as told:
            list(stream)
        sent.set()
        stopping.join()
        assert told.value.reason == "SHUTTING_DOWN"
        assert time.monotonic() - began < 10, "it waited for the session's client"


def test_one_session_too_many_is_refused(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url, max_sessions=1)
    with UpscaleClient(gateway.address) as client:
        with client.stream(FRAMES * 50) as first:
            next(first)
            with pytest.raises(OverloadedError, match="1 sessions are open already"):
                list(client.stream(FRAMES))
            client.upscale(FRAMES[0])
        until_nothing_is_held(gateway)
        assert len(list(client.stream(FRAMES))) == 4
    gateway.stop()


def test_sessions_share_the_slots_with_single_calls(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    """With fewer slots than sessions want, they wait for each other and nothing fails."""
    gateway = start_gateway(triton.url, max_inflight_frames=2)
    failures: list[UpscaleError] = []

    def session() -> None:
        with UpscaleClient(gateway.address) as client:
            failures.extend(answer.error for answer in client.stream(FRAMES * 3, window=4) if answer.error)

    threads = [threading.Thread(target=session) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    gateway.stop()


def test_what_the_frames_iterator_raises_is_raised_where_answers_are_read(
    client: UpscaleClient, gateway: GatewayProcess
) -> None:
    def frames() -> Iterator[Pixels]:
        yield FRAMES[0]
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="the camera is gone"):
        list(client.stream(frames()))
    with pytest.raises(ValueError, match="uint8"):
        list(client.stream([np.zeros((16, 16), np.uint8)]))
    until_nothing_is_held(gateway)


async def test_what_the_frames_iterator_raises_is_raised_where_answers_are_read_with_asyncio(
    gateway: GatewayProcess,
) -> None:
    async def frames() -> AsyncIterator[Pixels]:
        yield FRAMES[0]
        raise RuntimeError("the camera is gone")

    async with AsyncUpscaleClient(gateway.address) as client:
        with pytest.raises(RuntimeError, match="the camera is gone"):
            async for _ in client.stream(frames()):
                pass
    until_nothing_is_held(gateway)
