"""A mixed load whose every answer is checked: frames of all kinds, by all ways, to the bit as on a quiet service."""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upscale_client import AsyncSharedFrames, AsyncUpscaleClient, Upscaled, UpscaleError
from upscale_client.wire import Buffer

Pixels = NDArray[np.uint8]
Expected = Mapping[tuple[str, int, str], bytes]
"""Answers by kind of frame, number of the picture, and variant."""

PICTURES = 6
"""Different ones, so that an answer to another's frame is told from one's own."""
_HEIGHT, _WIDTH = 48, 64
_SESSION_FRAMES = 25
_WINDOW = 3
_PATIENCE_S = 30.0
"""A frame that has neither answer nor error by then is lost."""
_PAUSE_AFTER_ERROR_S = 0.1
LADDER = ("runet", "bicubic_plus_plus", "bicubic")


@dataclass
class Tally:
    """What became of a load's frames."""

    sent: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list[str])
    """Answers that are not the frame's own; each is a bug."""
    lost: list[str] = field(default_factory=list[str])
    """Frames with neither answer nor error; each is a bug."""
    failed: Counter[str] = field(default_factory=Counter[str])
    """Frames that failed, by gRPC code."""
    seconds: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Of each frame that was answered: when it was, on `time.monotonic`'s clock, and how long it took."""

    @property
    def done(self) -> int:
        """Frames that were answered or failed."""
        return self.right + len(self.wrong) + sum(self.failed.values())

    def first_right_since(self, moment: float) -> float | None:
        """When the first frame was answered that was sent after the moment."""
        return min((end for end, took in self.seconds if end - took >= moment), default=None)


class Load:
    """Sends frames until it is told to stop.

    Args:
        address: of the gateway.
        expected: what the answers must be: those of `record`.
    """

    def __init__(self, address: str, expected: Expected) -> None:
        self._address = address
        self._expected = expected
        self.tally = Tally()
        self._stopping = False

    async def run(self) -> None:
        """Send frames of every kind until `stop` is called; returns when the last one is answered."""
        async with AsyncUpscaleClient(self._address, timeout_s=_PATIENCE_S) as client:
            unary = [self._unary(client, kind) for kind in _UNARY]
            await asyncio.gather(*unary, self._sessions(client), self._in_place(client))

    def stop(self) -> None:
        """Send no more."""
        self._stopping = True

    async def until(self, right: int, within_s: float) -> bool:
        """Wait until so many frames were answered; whether they were within the time."""
        ends = time.monotonic() + within_s
        while self.tally.right < right and time.monotonic() < ends:  # noqa: ASYNC110 - counting costs less than telling
            await asyncio.sleep(0.02)
        return self.tally.right >= right

    async def _unary(self, client: AsyncUpscaleClient, kind: str) -> None:
        ask = _UNARY[kind]
        for picture in itertools.cycle(range(PICTURES)):
            if self._stopping:
                return
            await self._one(kind, picture, lambda picture=picture: ask(client, picture))

    async def _one(self, kind: str, picture: int, ask: Callable[[], Awaitable[Upscaled]]) -> bool:
        self.tally.sent += 1
        began = time.monotonic()
        try:
            answer = await ask()
        except UpscaleError as error:
            self._failed(kind, error)
            await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
            return False
        self._answered(kind, picture, answer.variant, answer.data, began)
        return True

    def _answered(self, kind: str, picture: int, variant: str, data: Buffer, began: float) -> None:
        now = time.monotonic()
        came = bytes(data)
        if came != self._expected.get((kind, picture, variant)):
            self.tally.wrong.append(
                f"{kind}, picture {picture}, by {variant}: {self._likeness(came, kind, picture, variant)}"
            )
            return
        self.tally.right += 1
        self.tally.seconds.append((now, now - began))

    def _likeness(self, came: bytes, kind: str, picture: int, variant: str) -> str:
        """What a wrong answer is, to find out where it came from."""
        for (of_kind, of_picture, by), data in self._expected.items():
            if came == data:
                return f"it is that of {of_kind}, picture {of_picture}, by {by}"
        right = self._expected.get((kind, picture, variant), b"")
        if len(came) != len(right):
            return f"it has {len(came)} bytes, not {len(right)}"
        off = np.abs(np.frombuffer(came, np.uint8).astype(int) - np.frombuffer(right, np.uint8))
        (where,) = off.nonzero()
        return f"{where.size} of {len(came)} bytes differ, from {where[0]} to {where[-1]}, by at most {off.max()}"

    def _failed(self, kind: str, error: UpscaleError) -> None:
        if error.code.name == "DEADLINE_EXCEEDED" and not error.reason:  # ours: the service never said a word
            self.tally.lost.append(f"{kind}: no word within {_PATIENCE_S:g} s")
        self.tally.failed[error.code.name] += 1

    async def _sessions(self, client: AsyncUpscaleClient) -> None:
        while not self._stopping:
            sent: list[float] = []

            async def frames(sent: list[float] = sent) -> AsyncIterator[Pixels]:
                for number in range(_SESSION_FRAMES):
                    if self._stopping:
                        return
                    self.tally.sent += 1
                    sent.append(time.monotonic())
                    yield _pixels(number % PICTURES)

            answered = 0
            stream = client.stream(frames(), scale=2, model="runet", window=_WINDOW, timeout_s=_PATIENCE_S)
            try:
                async for answer in stream:
                    if answer.sequence != answered:
                        self.tally.wrong.append(f"session: answer {answer.sequence} in the place of {answered}")
                    answered += 1
                    try:
                        result = answer.result()
                    except UpscaleError as error:
                        self._failed("session", error)
                        await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
                        continue
                    at = sent[answer.sequence]
                    self._answered("session", answer.sequence % PICTURES, result.variant, result.data, at)
                if answered != len(sent):
                    self.tally.lost.append(f"session: of {len(sent)} frames {answered} answered, without an error")
            except UpscaleError as error:
                for _ in range(len(sent) - answered):  # the session's error is the error of each of them
                    self._failed("session", error)
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)

    async def _in_place(self, client: AsyncUpscaleClient) -> None:
        kind = "in place"
        while not self._stopping:
            try:
                shared = await client.shared_frames(_WIDTH, _HEIGHT, scale=2, model="runet")
            except UpscaleError:  # not a frame's
                await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
                continue
            async with shared:
                for picture in itertools.cycle(range(PICTURES)):
                    if self._stopping:
                        return
                    shared.inputs[0][:] = _pixels(picture)
                    shared.outputs[0][:] = 0

                    if not await self._one(kind, picture, lambda shared=shared: _in_its_place(shared)):
                        break  # the region may be gone with the gateway that knew it


async def record(address: str) -> Expected:
    """What a quiet service answers: by kind, picture and variant."""
    expected: dict[tuple[str, int, str], bytes] = {}
    async with AsyncUpscaleClient(address, timeout_s=_PATIENCE_S) as client:
        for picture in range(PICTURES):
            for kind, ask in _UNARY.items():
                answer = await ask(client, picture)
                expected[kind, picture, answer.variant] = bytes(answer.data)
            for model in LADDER:
                answer = await client.upscale(_pixels(picture), scale=3, model=model)
                expected["stepping down", picture, answer.variant] = bytes(answer.data)
            answer = await client.upscale(_pixels(picture), scale=2, model="runet")
            for kind in ("session", "in place"):
                expected[kind, picture, answer.variant] = bytes(answer.data)
    return expected


async def _in_its_place(shared: AsyncSharedFrames) -> Upscaled:
    answer = await shared.upscale()
    return replace(answer, data=shared.outputs[0].tobytes())


def _pixels(picture: int) -> Pixels:
    return _PIXELS[picture]


def _make_pictures() -> Iterator[Pixels]:
    """Noise over a ramp: every one of them another, and none that a network makes the same of."""
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 128, (_HEIGHT, _WIDTH, 3))
        yield (noise + np.linspace(0, 127, _WIDTH)[None, :, None]).astype(np.uint8)


def _png(picture: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


_PIXELS = list(_make_pictures())
_FILES = [_png(picture) for picture in _PIXELS]
_NV12 = [np.concatenate([picture[..., 0], picture[::2, :, 1]]) for picture in _PIXELS]
_UNARY: dict[str, Callable[[AsyncUpscaleClient, int], Awaitable[Upscaled]]] = {
    "RGB24": lambda client, picture: client.upscale(_PIXELS[picture], scale=2, model="runet"),
    "NV12": lambda client, picture: client.upscale(_NV12[picture], scale=2, model="runet", pixel_format="nv12"),
    "stepping down": lambda client, picture: client.upscale(
        _PIXELS[picture], scale=3, model="runet", budget_s=0.5, step_down=True
    ),
    "PNG, offline": lambda client, picture: client.upscale(
        _FILES[picture], scale=2, model="runet", output="png", priority="offline"
    ),
}
