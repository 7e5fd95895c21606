"""`python -m tests.integration.two_hosts_client ADDRESS CA EXPECTED`: a client on a host of its own, by TLS.

Sends frames without a pause until its standard input ends, and prints what became of each: a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np

from upscale_client import AsyncUpscaleClient, Tls, UpscaleError

AT_ONCE = 4
PATIENCE_S = 60.0
"""A frame without an answer or an error by then is lost."""
_PAUSE_AFTER_ERROR_S = 0.1


async def send(address: str, ca: Path, expected: Path) -> None:
    """Send frames, so many at once, until nobody wants more."""
    frames = np.load(expected)
    stopped = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    numbers = count()

    async def one_after_the_other(client: AsyncUpscaleClient) -> None:
        while not stopped.done():
            picture = next(numbers) % len(frames["inputs"])
            began = time.monotonic()
            code, kind, right = "OK", "", None
            try:
                answer = await client.upscale(frames["inputs"][picture], scale=2)
                right = bool(np.array_equal(answer.array, frames["outputs"][picture]))
            except UpscaleError as error:
                code, kind = error.code.name, type(error).__name__
            told = {"sent": began, "ended": time.monotonic(), "code": code, "kind": kind, "right": right}
            print(json.dumps(told), flush=True)
            if code != "OK":
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)

    async with AsyncUpscaleClient(address, tls=Tls(ca), timeout_s=PATIENCE_S) as client:
        await asyncio.gather(*(one_after_the_other(client) for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
