"""Long and rough use: memory stays flat, order is kept, and no slot is lost."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from deploy.embedded import EmbeddedTriton
from tests.conftest import StartGateway, until_nothing_is_held
from upscale_client import StreamFrame, UpscaleClient, UpscaleError

Pixels = NDArray[np.uint8]
FRAME = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
HD = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)


def test_ten_thousand_frames_for_a_slow_reader(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url)
    memory = psutil.Process(gateway.pid).memory_info
    seen: list[int] = []

    def frames() -> Iterator[StreamFrame]:
        for number in range(10_000):
            yield StreamFrame(FRAME, sequence=number)

    with UpscaleClient(gateway.address) as client:
        stream = client.stream(frames(), scale=2, window=4)
        for number, answer in enumerate(stream):
            assert answer.sequence == number
            assert answer.result().width == 128
            if number % 500 == 0:
                time.sleep(0.3)  # the reader looks away
                seen.append(memory().rss)
        assert stream.summary().answered == 10_000
    settled = seen[4:]
    assert max(settled) - min(settled) < 8 << 20, f"memory grew: {[size >> 20 for size in seen]} MB"
    until_nothing_is_held(gateway)
    gateway.stop()


def test_errors_cancels_and_kills_lose_no_slot(
    own_triton: EmbeddedTriton, repository: Path, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(own_triton.url)
    over = time.monotonic() + 20
    unexpected: list[BaseException] = []

    def good(client: UpscaleClient, rng: random.Random) -> None:
        client.upscale(HD, scale=rng.choice([2, 3]), output=rng.choice(["rgb24", "png"]))

    def bad(client: UpscaleClient, rng: random.Random) -> None:
        client.upscale(rng.choice([HD[:3], b"\x89PNG\r\n\x1a\nbroken"]), scale=2)

    def late(client: UpscaleClient, rng: random.Random) -> None:
        client.upscale(HD, budget_s=rng.uniform(1e-5, 0.05), timeout_s=rng.uniform(0.001, 0.1))

    def left(client: UpscaleClient, rng: random.Random) -> None:
        with client.stream([HD] * 8, window=4) as stream:
            for _ in range(rng.randrange(4)):
                next(stream)

    def shared(client: UpscaleClient, rng: random.Random) -> None:
        with client.shared_frames(320, 180, scale=2) as frames:
            for _ in range(rng.randrange(3)):
                frames.upscale(timeout_s=rng.uniform(0.005, 1))

    def hammer(seed: int) -> None:
        rng = random.Random(seed)
        acts: list[Callable[[UpscaleClient, random.Random], None]] = [good, bad, late, left, shared]
        while time.monotonic() < over:
            with UpscaleClient(gateway.address) as client:
                for _ in range(10):
                    try:
                        rng.choice(acts)(client, rng)
                    except (UpscaleError, StopIteration):
                        continue
                    except BaseException as error:
                        unexpected.append(error)
                        raise

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    program = textwrap.dedent("""
        import sys, numpy
        from upscale_client import UpscaleClient
        client = UpscaleClient(sys.argv[1])
        frame = numpy.zeros((180, 320, 3), numpy.uint8)
        shared = client.shared_frames(320, 180, scale=2)
        for answer in client.stream([frame] * 10_000, window=4):
            shared.upscale()
    """)
    for number in range(4):
        with subprocess.Popen([sys.executable, "-c", program, gateway.address], stderr=subprocess.DEVNULL) as process:
            time.sleep(2)
            process.send_signal(signal.SIGKILL)
        if number == 1:
            own_triton.kill()
            own_triton.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    with UpscaleClient(gateway.address) as client:
        until_nothing_is_held(gateway)
        for _ in range(40):
            with contextlib.suppress(UpscaleError):
                client.upscale(HD)
        assert client.upscale(HD).width == 960
    gateway.stop()
