"""Requests and sessions, from the wire to the answer: all of the gateway but gRPC before it and Triton behind it."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.duration_pb2 import Duration
from PIL import Image

from service.catalog import Catalog, Variant
from service.errors import InternalError, UpscaleError
from service.failures import FailureLog
from service.frames import FrameStore, SlotBatch
from service.line import Caller, FrameLine
from service.metrics import Metrics
from service.regions import Regions
from service.scheduler import Scheduler
from service.scheduling.ladder import LadderPosition
from service.session import Session
from service.timing import StageClock
from service.wishes import Wish
from tests.fuzz.fuzzed import Fuzzed
from upscale_client import wire
from upscale_client.v1 import upscale_pb2 as pb

_INTERNAL = 13
_VARIANTS = [
    Variant("runet_x2_clean", "runet", 2, "clean", 8, trained=True, instances=1),
    Variant("runet_x3_clean", "runet", 3, "clean", 8, trained=True, instances=1),
    Variant("bicubic_x2_clean", "bicubic", 2, "clean", 8, trained=True, instances=1),
    Variant("runet_x2_nv12", "runet", 2, "clean", 8, trained=True, instances=1, pixels="nv12"),
]


class _AtOnce:
    """In Triton's place: leaves the answers as they are."""

    url = "triton:8001"

    async def infer(self, variant: Variant, batch: SlotBatch) -> None:
        assert len(batch.slots) <= variant.max_batch_frames


class Calls(Fuzzed):
    """The first byte says whether it is one request or a session, whose messages have their length before them."""

    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)  # every failed frame has a line, and this is about failed frames
        self._loop = asyncio.new_event_loop()
        self._frames = FrameStore(8, 1 << 24)
        self._line = self._loop.run_until_complete(self._made())

    async def _made(self) -> FrameLine:
        catalog = Catalog("runet", "clean", 1 << 16, ("runet", "bicubic"))
        catalog.update(_VARIANTS)
        scheduler = Scheduler(self._frames)
        scheduler.join(_AtOnce(), _VARIANTS)
        return FrameLine(
            catalog,
            self._frames,
            Regions(self._frames, 1),
            scheduler,
            Metrics(),
            ThreadPoolExecutor(1),
            16,
            FailureLog(1),
        )

    def seeds(self) -> Sequence[bytes]:
        rgb = pb.Frame(width=16, height=16, encoding=pb.ENCODING_RGB24, data=bytes(768))
        nv12 = pb.Frame(
            width=16,
            height=16,
            encoding=pb.ENCODING_NV12,
            colour=pb.Colour(range=pb.COLOUR_RANGE_FULL),
            data=bytes(384),
        )
        file = io.BytesIO()
        Image.new("RGB", (16, 18)).save(file, "PNG")
        png = pb.Frame(encoding=pb.ENCODING_PNG, data=file.getvalue())
        place = pb.RegionRef(handle="none", offset=32)
        requests = [
            pb.UpscaleRequest(model="runet", scale=2, profile=pb.PROFILE_CLEAN, frame=rgb),
            pb.UpscaleRequest(budget=Duration(seconds=1), step_down=True, priority=pb.PRIORITY_OFFLINE, frame=rgb),
            pb.UpscaleRequest(output=pb.OutputFormat(encoding=pb.ENCODING_I420), frame=nv12),
            pb.UpscaleRequest(output=pb.OutputFormat(encoding=pb.ENCODING_JPEG, quality=50), frame=png),
            pb.UpscaleRequest(
                answer=place, frame=pb.Frame(width=16, height=16, encoding=pb.ENCODING_RGB24, region=place)
            ),
        ]
        options = pb.StreamOptions(scale=2, window=2, drop=pb.DROP_POLICY_LATEST_WINS, budget=Duration(seconds=2))
        session = [
            pb.UpscaleStreamRequest(options=options, sequence=1, frame=rgb),
            *(pb.UpscaleStreamRequest(sequence=number, presentation_time=-1, frame=rgb) for number in (2, 3, 4)),
        ]
        return [
            *(b"\0" + request.SerializeToString() for request in requests),
            b"\1" + b"".join(map(_with_length, session[:2])),
            b"\1" + b"".join(map(_with_length, session)),
        ]

    def one(self, data: bytes) -> None:
        if not data:
            return
        work = self._session(data[1:]) if data[0] % 2 else self._request(data[1:])
        self._loop.run_until_complete(asyncio.wait_for(self._clean(work), 5))

    async def _clean(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except InternalError as error:
            raise AssertionError("a bare exception on the way") from (error.__cause__ or error)
        except (UpscaleError, wire.DecodeError):  # gRPC tells of the latter
            pass
        ends = time.monotonic() + 4
        while self._frames.in_use:  # a thread lets go a moment later
            assert time.monotonic() < ends, "a slot is held still"
            await asyncio.sleep(0)

    async def _request(self, sent: bytes) -> None:
        request = wire.parse(pb.UpscaleRequest, sent)
        caller = Caller("Upscale", "fuzz")
        clock = StageClock(time.perf_counter())
        with await self._line.upscale(caller, lambda: Wish.of(request.message), request, clock) as answer:
            assert answer.data is None or answer.frame.width * answer.frame.height <= 1 << 16

    async def _session(self, sent: bytes) -> None:
        messages = _messages(sent)
        taken: list[int] = []

        async def read() -> wire.Framed[pb.UpscaleStreamRequest] | None:
            for message in messages:
                parsed = wire.parse(pb.UpscaleStreamRequest, message)
                taken.append(parsed.message.sequence)
                return parsed
            return None

        async def write(response: bytes) -> None:
            answer = pb.UpscaleStreamResponse.FromString(response)
            assert answer.sequence in taken
            if answer.error.code == _INTERNAL:
                raise InternalError(answer.error.message)

        session = Session(
            self._line,
            read,
            write,
            caller=Caller("UpscaleStream", "fuzz", LadderPosition()),
            max_window=4,
            write_timeout_s=2,
            idle_s=2,
        )
        await session.run()
        summary = session.summary
        assert summary.answered + summary.failed + summary.dropped <= len(taken)


def _with_length(message: pb.UpscaleStreamRequest) -> bytes:
    data = message.SerializeToString()
    return len(data).to_bytes(2, "big") + data


def _messages(sent: bytes) -> Iterator[bytes]:
    while sent:
        end = 2 + int.from_bytes(sent[:2], "big")
        yield sent[2:end]
        sent = sent[end:]


CALLS = Calls()
