"""A session's order, window, dropping and end, with a line that does as it is told and a client that may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from service.catalog import Variant
from service.errors import (
    FrameInvalidError,
    OverloadedError,
    ReaderTooSlowError,
    RequestInvalidError,
    SessionIdleError,
    ShuttingDownError,
)
from service.frames import FrameFormat, FrameStore
from service.line import Answer, Caller
from service.scheduling.jobs import Priority
from service.scheduling.ladder import LadderPosition
from service.session import Session
from service.timing import StageClock
from service.wishes import Wish
from upscale_client.v1 import upscale_pb2 as pb
from upscale_client.wire import Framed

SIZE = FrameFormat(height=16, width=16, scale=2)
RETRY_AFTER_S = {b"full": None, b"full now": 0.0, b"full for long": 1.25}
CALLER = Caller("UpscaleStream", "somebody", LadderPosition())
VARIANT = Variant("runet_x2_clean", "runet", 2, "clean", 4, True, 1)


class Line:
    """Answers each frame when the test says so, or at once."""

    def __init__(self, store: FrameStore, at_once: bool) -> None:
        self.begun: list[int] = []
        self._store = store
        self._at_once = at_once
        self._gates: dict[int, asyncio.Future[None]] = {}

    async def upscale(self, caller: Any, wish: Any, framed: Any, clock: StageClock, call_s: Any) -> Answer:
        number = framed.message.sequence
        self.begun.append(number)
        with self._store.take(SIZE) as slot:
            if not self._at_once:
                self._gates[number] = asyncio.get_running_loop().create_future()
                await self._gates[number]
            if framed.data == b"bad":
                raise FrameInvalidError("it is bad")
            if framed.data in RETRY_AFTER_S:
                raise OverloadedError("it is too much", RETRY_AFTER_S[framed.data])
            slot.hold()
            return Answer(VARIANT, pb.Frame(width=32, height=32), b"pixels", 1, clock, slot)

    def finish(self, number: int) -> None:
        self._gates[number].set_result(None)


class Scene:
    """A session between a line and a client."""

    def __init__(
        self, store: FrameStore, *, at_once: bool = True, write_timeout_s: float = 5.0, idle_s: float = 5.0
    ) -> None:
        self.line = Line(store, at_once)
        self.sent: asyncio.Queue[Framed[pb.UpscaleStreamRequest] | None] = asyncio.Queue()
        self.taken = 0
        self.answers: list[pb.UpscaleStreamResponse] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.session = Session(
            self.line,  # pyright: ignore[reportArgumentType]
            self._read,
            self._write,
            caller=CALLER,
            max_window=4,
            write_timeout_s=write_timeout_s,
            idle_s=idle_s,
        )

    def options(self, **options: Any) -> None:
        self.sent.put_nowait(Framed(pb.UpscaleStreamRequest(options=pb.StreamOptions(**options))))

    def frame(self, number: int, data: bytes = b"frame") -> None:
        message = pb.UpscaleStreamRequest(sequence=number, presentation_time=10 * number, frame=pb.Frame(width=16))
        self.sent.put_nowait(Framed(message, data))

    def end(self) -> None:
        self.sent.put_nowait(None)

    def numbers(self) -> list[int]:
        return [answer.sequence for answer in self.answers]

    async def _read(self) -> Framed[pb.UpscaleStreamRequest] | None:
        request = await self.sent.get()
        self.taken += 1
        return request

    async def _write(self, response: bytes) -> None:
        await self.reading.wait()
        self.answers.append(pb.UpscaleStreamResponse.FromString(response))


@pytest.fixture
def store() -> Iterator[FrameStore]:
    store = FrameStore(max_frames=16, max_bytes=1 << 20)
    yield store
    assert store.in_use == 0, "a slot was lost"
    store.close()


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_answers_come_in_the_frames_order(store: FrameStore) -> None:
    scene = Scene(store, at_once=False)
    scene.options(window=3)
    for number in range(3):
        scene.frame(number)
    scene.end()
    running = asyncio.create_task(scene.session.run())
    await settle()
    assert scene.line.begun == [0, 1, 2]
    for number in (2, 0, 1):
        scene.line.finish(number)
        await settle()
    await running
    assert scene.numbers() == [0, 1, 2]
    assert [answer.presentation_time for answer in scene.answers] == [0, 10, 20]
    assert [answer.frame.data for answer in scene.answers] == [b"pixels"] * 3
    assert scene.session.summary == pb.StreamSummary(answered=3)


async def test_a_slow_reader_is_not_read_ahead_of(store: FrameStore) -> None:
    scene = Scene(store)
    scene.reading.clear()
    scene.options(window=2)
    for number in range(50):
        scene.frame(number)
    scene.end()
    running = asyncio.create_task(scene.session.run())
    await settle()
    assert scene.taken == 1 + 2 + 1, "the options, the window, and one that waits"
    assert store.in_use <= 2
    scene.reading.set()
    await running
    assert scene.numbers() == list(range(50))


async def test_the_latest_wins_if_asked_to(store: FrameStore) -> None:
    scene = Scene(store, at_once=False)
    scene.options(window=1, drop=pb.DROP_POLICY_LATEST_WINS)
    for number in range(5):
        scene.frame(number)
    running = asyncio.create_task(scene.session.run())
    await settle()
    scene.line.finish(0)
    await settle()
    assert scene.line.begun == [0, 4]
    scene.frame(5)
    scene.end()
    await settle()
    scene.line.finish(4)
    await settle()
    scene.line.finish(5)
    await running
    assert [(answer.sequence, answer.dropped) for answer in scene.answers] == [(0, 0), (4, 3), (5, 0)]
    assert scene.session.summary == pb.StreamSummary(answered=3, dropped=3)


async def test_a_bad_frame_is_answered_with_its_error_and_the_session_goes_on(store: FrameStore) -> None:
    scene = Scene(store)
    scene.frame(0)  # without options: the defaults
    scene.frame(1, b"bad")
    scene.frame(2)
    scene.end()
    await scene.session.run()
    assert scene.numbers() == [0, 1, 2]
    assert scene.answers[1].error == pb.FrameError(code=3, reason="FRAME_INVALID", message="it is bad")
    assert not scene.answers[1].HasField("frame")
    assert scene.session.summary == pb.StreamSummary(answered=2, failed=1)


async def test_a_refused_frame_is_told_when_to_try_again_if_that_is_known(store: FrameStore) -> None:
    scene = Scene(store)
    for number, data in enumerate(RETRY_AFTER_S):
        scene.frame(number, data)
    scene.end()
    await scene.session.run()
    errors = [answer.error for answer in scene.answers]
    assert [error.reason for error in errors] == ["OVERLOADED"] * 3
    assert [error.HasField("retry_after") for error in errors] == [False, True, True]
    assert [error.retry_after.ToNanoseconds() / 1e9 for error in errors[1:]] == [0.0, 1.25]


async def test_an_answer_that_is_never_read_ends_the_session(store: FrameStore) -> None:
    scene = Scene(store, write_timeout_s=0.05)
    scene.reading.clear()
    for number in range(9):
        scene.frame(number)
    with pytest.raises(ReaderTooSlowError, match=r"not read within 0\.05 s"):
        await scene.session.run()


@pytest.mark.parametrize("finished", [False, True])
async def test_a_client_that_leaves_takes_its_frames_with_it(store: FrameStore, finished: bool) -> None:
    scene = Scene(store, at_once=finished)
    scene.reading.clear()
    scene.options(window=4)
    for number in range(9):
        scene.frame(number)
    running = asyncio.create_task(scene.session.run())
    await settle()
    assert store.in_use >= 3
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_client_whose_leaving_is_told_twice_loses_no_slot(store: FrameStore) -> None:
    """First by a write that fails, then, while the session tidies up, by the cancelled call."""
    scene = Scene(store)

    async def write(response: bytes) -> None:
        await settle()
        assert store.in_use == 3
        asyncio.get_running_loop().call_soon(running.cancel)
        raise asyncio.CancelledError

    session = Session(scene.line, scene._read, write, caller=CALLER, max_window=4, write_timeout_s=5, idle_s=5)  # pyright: ignore
    scene.options(window=4)
    for number in range(4):
        scene.frame(number)
    running = asyncio.create_task(session.run())
    with pytest.raises(asyncio.CancelledError):
        await running
    await settle()


async def test_a_stopped_session_answers_what_it_took(store: FrameStore) -> None:
    scene = Scene(store, at_once=False)
    scene.options(window=2)
    for number in range(2):
        scene.frame(number)
    running = asyncio.create_task(scene.session.run())
    await settle()
    scene.session.stop()
    await settle()
    scene.frame(2)
    scene.line.finish(0)
    scene.line.finish(1)
    with pytest.raises(ShuttingDownError):
        await running
    assert scene.numbers() == [0, 1]


async def test_a_session_of_nothing_ends(store: FrameStore) -> None:
    for with_options in (False, True):
        scene = Scene(store)
        if with_options:
            scene.options()
        scene.end()
        await asyncio.wait_for(scene.session.run(), 1)
        assert scene.answers == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 5}, "options.window is 5; accepted are 1 to 4, and 0 for the default"),
        ({"drop": 9}, r"options.drop is 9 \(unknown\); accepted are: DROP_POLICY_KEEP_ALL, DROP_POLICY_LATEST_WINS"),
        ({"profile": 9}, r"profile is 9 \(unknown\)"),
        ({"priority": 9}, r"priority is 9 \(unknown\); accepted are: PRIORITY_LIVE, PRIORITY_OFFLINE"),
        ({"budget": {"seconds": -1}}, "budget is -1 s"),
    ],
)
async def test_wrong_options_are_named(store: FrameStore, options: dict[str, Any], message: str) -> None:
    scene = Scene(store)
    scene.options(**options)
    scene.frame(0)
    with pytest.raises(RequestInvalidError, match=message):
        await scene.session.run()


@pytest.mark.parametrize("kind", [pb.UpscaleRequest, pb.StreamOptions])
def test_a_wish_says_who_goes_first_and_who_steps_down(kind: type[pb.UpscaleRequest] | type[pb.StreamOptions]) -> None:
    plain = Wish.of(kind())
    assert (plain.priority, plain.step_down) == (Priority.LIVE, False)
    assert Wish.of(kind(priority=pb.PRIORITY_LIVE)).priority is Priority.LIVE
    wish = Wish.of(kind(priority=pb.PRIORITY_OFFLINE, step_down=True))
    assert (wish.priority, wish.step_down) == (Priority.OFFLINE, True)
    with pytest.raises(RequestInvalidError, match=r"priority is -1 \(unknown\)"):
        Wish.of(kind(priority=-1))  # pyright: ignore[reportArgumentType]


async def test_options_come_once(store: FrameStore) -> None:
    scene = Scene(store)
    scene.options()
    scene.frame(0)
    scene.options()
    with pytest.raises(RequestInvalidError, match="options may come in the first message only"):
        await scene.session.run()
    assert scene.numbers() == [0]


async def test_a_client_that_sends_nothing_is_let_go(store: FrameStore) -> None:
    scene = Scene(store, idle_s=0.05)
    scene.options()
    with pytest.raises(SessionIdleError, match=r"nothing was sent for 0.05 s"):
        await scene.session.run()


async def test_a_client_that_waits_for_an_answer_is_not_idle(store: FrameStore) -> None:
    scene = Scene(store, at_once=False, idle_s=0.02)
    scene.options()
    scene.frame(0)
    running = asyncio.create_task(scene.session.run())
    await asyncio.sleep(0.1)
    scene.line.finish(0)
    with pytest.raises(SessionIdleError):
        await running
    assert scene.numbers() == [0]
