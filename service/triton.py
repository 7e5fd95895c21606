"""Triton by gRPC: what it serves, whether it is there, and the inference of a batch.

Frames travel by shared memory where Triton shares /dev/shm with the gateway, as bytes where it does not. tritonclient
has no type information worth the name; what it returns is named and typed here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as _service_pb2
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.catalog import Variant
from service.errors import BackendUnavailableError, InternalError, NotHeldError
from service.frames import FrameFormat, FrameStore, SlotBatch, Span
from service.mappings import GONE, POLL_TIMEOUT_S, Mappings
from upscale_client.colour import colour_maps

log = logging.getLogger(__name__)

service_pb2: Any = _service_pb2  # its names are made at import time, unseen by type checkers
INPUT = "lr_frames"
OUTPUT = "sr_frames"
COLOURS = "colours"
_MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_SERVER_LIVE = "/inference.GRPCInferenceService/ServerLive"
_VANISHED_S = 5
"""A host that was switched off or cut off says nothing, and TCP waits for a quarter of an hour. A connection on which
nobody has confirmed what was sent for so long is closed: its batches are inferred elsewhere, and the next look makes
another, rather than wait for TCP's next try, which is the later the longer the host was away."""
_PING_EVERY_S = 600
"""Without pings gRPC does not set that limit; a Triton cuts off who sends them more often than every 300 s."""
# What Triton says when it has restarted and knows our regions no more.
_REGION_UNKNOWN = "Unable to find shared memory region"


class Triton:
    """One Triton endpoint; several share one store of frames.

    Args:
        url: host and port of its gRPC endpoint.
        frames: the store whose lanes are registered here.
        shared_memory: "auto", "on" or "off"; see `Settings.triton_shared_memory`.
        infer_timeout_s: a batch without an answer for so long is given up.
        on_change: called with this endpoint and the variants it serves, after every look; with none while it is gone.
    """

    def __init__(
        self,
        url: str,
        frames: FrameStore,
        *,
        shared_memory: Literal["auto", "on", "off"],
        infer_timeout_s: float,
        on_change: Callable[[Triton, list[Variant]], None],
    ) -> None:
        self.url = url
        self.up = False
        self._frames = frames
        self._infer_timeout_s = infer_timeout_s
        self._on_change = on_change
        self._batches = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._variants: dict[str, Variant | None] = {}
        self._versions: dict[str, tuple[str, ...]] = {}
        """The versions of each model that are ready."""
        self._late = False
        # Its own pool: after Triton's return, gRPC's shared one would sit out a back-off of up to two minutes.
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 1000 * _PING_EVERY_S),
            ("grpc.keepalive_timeout_ms", 1000 * _VANISHED_S),
        ]
        self._client: Any = InferenceServerClient(url, channel_args=options)
        self._mappings = Mappings(url, self._client, frames, shared_memory)
        # What every frame goes through costs half as much by Triton's own messages as by tritonclient's classes.
        self._channel = grpc.aio.insecure_channel(url, options=options)
        self._model_infer: Callable[[bytes], Awaitable[bytes]] = self._channel.unary_unary(_MODEL_INFER)
        self._server_live: Callable[..., Awaitable[bytes]] = self._channel.unary_unary(_SERVER_LIVE)
        self._asking: asyncio.Task[None] | None = None

    async def watch(self, every_s: float) -> None:
        """Look at Triton again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                # Whatever it was, it must not end the watch: the gateway would believe for ever what it saw last.
                log.exception("looking at Triton at %s failed. This is a bug.", self.url)
                self._gone()
                self._on_change(self, [])
            await asyncio.sleep(every_s)

    async def look(self) -> None:
        """Find out whether Triton is there and which variants it serves, and tell `on_change`."""
        self._mappings.note_removed()
        if self._batches and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask_where_batches_wait())
        try:
            index = await self._client.get_model_repository_index(client_timeout=POLL_TIMEOUT_S)
            await self._note_models(
                sorted((entry.name, entry.version) for entry in index.models if entry.state == "READY")
            )
            await self._mappings.tidy()
            up, self._late = True, False
        except InferenceServerException as error:
            late = str(error.status()) == "StatusCode.DEADLINE_EXCEEDED"
            # One late answer is a busy machine, two are a hung server.
            up = self.up and late and not self._late
            self._late = late
        if up and not self.up:
            log.info("Triton at %s is up", self.url)
            self.up = True
        elif self.up and not up:
            log.warning("Triton at %s is gone", self.url)
            self._gone()
        self._on_change(self, [variant for variant in self._variants.values() if variant])

    async def _ask_where_batches_wait(self) -> None:
        """Send something on the batches' own connection, for one that only waits does not learn that it is broken."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._server_live(b"", timeout=POLL_TIMEOUT_S)

    def _gone(self) -> None:
        self.up = False
        self._mappings.forget()
        self._variants.clear()
        self._versions.clear()

    async def _note_models(self, ready: Iterable[tuple[str, str]]) -> None:
        """Take what is served from the names and versions that are ready."""
        versions = {name: tuple(version for _, version in each) for name, each in groupby(ready, itemgetter(0))}
        self._variants = {name: variant for name, variant in self._variants.items() if name in versions}
        for name, now in versions.items():
            before = self._versions.get(name)
            # A configuration stays what it is while its model is loaded; it is asked for once.
            if before != now or name not in self._variants:
                self._variants[name] = await self._variant(name)
                if before not in (None, now):
                    # Which one answers is Triton's choice: the latest of them, for a request names none.
                    log.info("Triton at %s serves version %s of %s now", self.url, " and ".join(now), name)
        self._versions = versions

    async def _variant(self, name: str) -> Variant | None:
        """The variant that a model of Triton's is, or None for somebody else's model."""
        answer = await self._client.get_model_config(name, client_timeout=POLL_TIMEOUT_S)
        config = answer.config
        parameters = {key: value.string_value for key, value in config.parameters.items()}
        if not {"model", "scale", "profile"} <= parameters.keys() or not parameters["scale"].isdigit():
            return None
        return Variant(
            name=config.name,
            model=parameters["model"],
            scale=int(parameters["scale"]),
            profile=parameters["profile"],
            max_batch_frames=max(1, config.max_batch_size),
            trained=parameters.get("trained") != "false",
            instances=max(1, sum(group.count for group in config.instance_group)),
            pixels="nv12" if parameters.get("pixel_format") == "nv12" else "rgb24",
        )

    async def infer(self, variant: Variant, batch: SlotBatch) -> None:
        """Fill the batch's outputs from its inputs.

        Raises:
            BackendUnavailableError: Triton is gone, does not hold the model, or gave no answer in time.
            RegionInvalidError: a client's region is not what it was.
            InternalError: Triton's model failed.
        """
        if self._closed:
            raise BackendUnavailableError(f"Triton at {self.url} is not used any more")
        self._batches += 1
        self._idle.clear()
        try:
            await self._infer(variant, batch)
        except asyncio.CancelledError:
            self._mappings.give_up(batch)
            raise
        finally:
            self._batches -= 1
            if not self._batches:
                self._idle.set()

    async def warm_up(self, variant: Variant, layout: FrameFormat, frames: int) -> float:
        """Infer a batch of black frames as real ones are inferred; returns the seconds it took.

        It is inferred twice and the second time counts: the first one pays for memory that Triton has not seen yet.

        Args:
            variant: the network; its `pixels` and its scale are the layout's.
            layout: of each frame.
            frames: in the batch.

        Raises:
            OverloadedError: there is no room for them beside the frames in flight; nothing was measured.
            UpscaleError: as `infer`.
        """
        slots = self._frames.take_apart(layout, frames)
        try:
            if layout.pixels == "nv12":
                luma = layout.height * layout.width
                for slot in slots:
                    slot.source.view[luma:] = b"\x80" * (layout.input_bytes - luma)
                    slot.colours = colour_maps("bt709", False)
            batch = SlotBatch(slots)
            await self.infer(variant, batch)
            began = time.perf_counter()
            await self.infer(variant, batch)
            return time.perf_counter() - began
        finally:
            for slot in slots:
                slot.release()

    async def _infer(self, variant: Variant, batch: SlotBatch) -> None:
        for last_try in (False, True):
            try:
                async with asyncio.timeout(self._infer_timeout_s):
                    regions = {batch.source.region, batch.answer.region}
                    for region in regions:
                        region.check()
                    if await self._mappings.hold(regions):
                        await self._infer_by_shared_memory(variant, batch)
                    else:
                        await self._infer_by_bytes(variant, batch)
                return
            except (InferenceServerException, grpc.aio.AioRpcError) as error:
                status, message = _told(error)
                if _REGION_UNKNOWN in message and not last_try:
                    self._mappings.forget()
                    continue
                raise self._translate(status, message, variant, batch) from error
            except TimeoutError:
                self._mappings.give_up(batch)
                raise BackendUnavailableError(
                    f"Triton gave no answer for {variant.name} in {self._infer_timeout_s:g} s"
                ) from None

    async def _infer_by_shared_memory(self, variant: Variant, batch: SlotBatch) -> None:
        maps = _maps(batch)
        asked = _request_by_shared_memory(
            variant.name,
            (len(batch.slots), *batch.layout.input_shape),
            None if maps is None else maps.shape,
            _place(batch.source),
            _place(batch.answer),
        )
        if maps is not None:
            # Messages one after the other are one message.
            asked += service_pb2.ModelInferRequest(raw_input_contents=[maps.tobytes()]).SerializeToString()
        await self._model_infer(asked)

    async def _infer_by_bytes(self, variant: Variant, batch: SlotBatch) -> None:
        maps = _maps(batch)
        shape = (len(batch.slots), *batch.layout.input_shape)
        request = _request(variant.name, shape, None if maps is None else maps.shape)
        request.raw_input_contents.append(bytes(batch.source.view))
        if maps is not None:
            request.raw_input_contents.append(maps.tobytes())
        answer = service_pb2.ModelInferResponse.FromString(await self._model_infer(request.SerializeToString()))
        batch.answer.view[:] = answer.raw_output_contents[0]

    def _translate(self, status: str, message: str, variant: Variant, batch: SlotBatch) -> Exception:
        if status == "StatusCode.NOT_FOUND" or "unknown model" in message or "is not ready" in message:
            return NotHeldError(f"Triton at {self.url} does not hold {variant.name} now")
        if status in GONE:
            # The call ended without Triton's word: it may still be at work on these slots.
            self._mappings.give_up(batch)
            return BackendUnavailableError(f"Triton at {self.url} is not there")
        log.error("Triton failed on %s: %s %s", variant.name, status, message)
        return InternalError(f"the inference of {variant.name} failed; the server's log says why")

    async def close(self) -> None:
        """Wait for its batches, let Triton forget our regions if it is there, and close the connection.

        Nobody may look at it any more. The store stays: other endpoints use it.
        """
        self._closed = True
        await self._idle.wait()
        await self._mappings.close()
        await self._client.close()
        await self._channel.close()


def _told(error: InferenceServerException | grpc.aio.AioRpcError) -> tuple[str, str]:
    """The status and the message of a call that failed, however it was made."""
    if isinstance(error, grpc.aio.AioRpcError):
        return str(error.code()), error.details() or ""
    return str(error.status()), str(error.message())


_Shape = tuple[int, ...]


class _Place(NamedTuple):
    """Where in shared memory a tensor lies."""

    region: str
    offset: int
    size: int


def _place(span: Span) -> _Place:
    return _Place(span.region.name, span.offset, span.size)


def _maps(batch: SlotBatch) -> NDArray[np.float32] | None:
    """The second input of NV12 networks: a few bytes, which go with the call."""
    maps = [slot.colours for slot in batch.slots if slot.colours is not None]
    return np.stack(maps) if maps else None


def _request(variant: str, shape: _Shape, maps: _Shape | None) -> Any:
    """What Triton is asked, but for where the frames and the answers are."""
    request = service_pb2.ModelInferRequest(model_name=variant)
    request.inputs.add(name=INPUT, datatype="UINT8", shape=shape)
    request.outputs.add(name=OUTPUT)
    if maps is not None:
        request.inputs.add(name=COLOURS, datatype="FP32", shape=maps)
    return request


@lru_cache(maxsize=1024)
def _request_by_shared_memory(
    variant: str, shape: _Shape, maps: _Shape | None, source: _Place, answer: _Place
) -> bytes:
    """What Triton is asked, but for the maps. It is the same whenever frames lie where others have lain before."""
    request = _request(variant, shape, maps)
    for tensor, place in ((request.inputs[0], source), (request.outputs[0], answer)):
        tensor.parameters["shared_memory_region"].string_param = place.region
        tensor.parameters["shared_memory_byte_size"].int64_param = place.size
        tensor.parameters["shared_memory_offset"].int64_param = place.offset
    return request.SerializeToString()
