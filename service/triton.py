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
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as _service_pb2
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.catalog import Variant
from service.errors import BackendUnavailableError, InternalError, NotHeldError, RegionInvalidError
from service.frames import SHARED_MEMORY, FrameFormat, FrameStore, Region, SlotBatch, Span
from upscale_client.colour import colour_maps

log = logging.getLogger(__name__)

service_pb2: Any = _service_pb2  # its names are made at import time, unseen by type checkers
INPUT = "lr_frames"
OUTPUT = "sr_frames"
COLOURS = "colours"
_MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
_SERVER_LIVE = "/inference.GRPCInferenceService/ServerLive"
_POLL_TIMEOUT_S = 2.0
_VANISHED_S = 5
"""A host that was switched off or cut off says nothing, and TCP waits for a quarter of an hour. A connection on which
nobody has confirmed what was sent for so long is closed: its batches are inferred elsewhere, and the next look makes
another, rather than wait for TCP's next try, which is the later the longer the host was away."""
_PING_EVERY_S = 600
"""Without pings gRPC does not set that limit; a Triton cuts off who sends them more often than every 300 s."""
# What Triton says when it has restarted and knows our regions no more.
_REGION_UNKNOWN = "Unable to find shared memory region"
# What it says when it knew a region all along: it was taken for gone, or we were.
_REGION_KNOWN = "already in manager"
_REGION_IN_USE = "currently in use"
_REGION_FILES = ("upscale-frames-", "upscale-client-")
_SWEEP_EVERY_S = 5.0
_LAST_PAUSES_S = (0.01, 0.04, 0.2, 1.0)
_GONE = {"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"}


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
        self._removed = frames.subscribe()
        self._shared_memory = shared_memory
        self._by_shared_memory = shared_memory != "off"
        self._infer_timeout_s = infer_timeout_s
        self._on_change = on_change
        self._registered: dict[str, asyncio.Task[None]] = {}
        self._may_know: dict[str, bool] = {}
        """Names of regions that Triton was told of, even if it may have forgotten them since, and whether it may be
        told to unmap them: not after a batch without an answer, for it may still write there."""
        self._unneeded: list[str] = []
        """Names that it is still to be told to unmap."""
        self._swept_at = 0.0
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
        self._note_removed()
        if self._batches and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask_where_batches_wait())
        try:
            index = await self._client.get_model_repository_index(client_timeout=_POLL_TIMEOUT_S)
            await self._note_models(
                sorted((entry.name, entry.version) for entry in index.models if entry.state == "READY")
            )
            await self._find_orphans()
            await self._unregister_unneeded()
            up, self._late = True, False
        except InferenceServerException as error:
            late = str(error.status()) == "StatusCode.DEADLINE_EXCEEDED"
            # One late answer is a busy machine, two are a hung server.
            up = self.up and late and not self._late
            self._late = late
        if up and not self.up:
            log.info("Triton at %s is up", self.url)
            self._by_shared_memory = self._shared_memory != "off"
            self.up = True
        elif self.up and not up:
            log.warning("Triton at %s is gone", self.url)
            self._gone()
        self._on_change(self, [variant for variant in self._variants.values() if variant])

    async def _ask_where_batches_wait(self) -> None:
        """Send something on the batches' own connection, for one that only waits does not learn that it is broken."""
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._server_live(b"", timeout=_POLL_TIMEOUT_S)

    def _gone(self) -> None:
        self.up = False
        self._registered.clear()
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
        answer = await self._client.get_model_config(name, client_timeout=_POLL_TIMEOUT_S)
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
            self._give_up(batch)
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
                    if self._by_shared_memory and all([await self._register(region) for region in regions]):
                        await self._infer_by_shared_memory(variant, batch)
                    else:
                        await self._infer_by_bytes(variant, batch)
                return
            except (InferenceServerException, grpc.aio.AioRpcError) as error:
                status, message = _told(error)
                if _REGION_UNKNOWN in message and not last_try:
                    self._registered.clear()
                    continue
                raise self._translate(status, message, variant, batch) from error
            except TimeoutError:
                self._give_up(batch)
                raise BackendUnavailableError(
                    f"Triton gave no answer for {variant.name} in {self._infer_timeout_s:g} s"
                ) from None

    async def _infer_by_shared_memory(self, variant: Variant, batch: SlotBatch) -> None:
        request = _request(variant, batch)
        _place(request.inputs[0], batch.source)
        _place(request.outputs[0], batch.answer)
        await self._model_infer(request.SerializeToString())

    async def _infer_by_bytes(self, variant: Variant, batch: SlotBatch) -> None:
        request = _request(variant, batch)
        request.raw_input_contents.insert(0, bytes(batch.source.view))
        answer = service_pb2.ModelInferResponse.FromString(await self._model_infer(request.SerializeToString()))
        batch.answer.view[:] = answer.raw_output_contents[0]

    async def _register(self, region: Region) -> bool:
        """Make the region known to Triton; False if Triton cannot see our shared memory and bytes are allowed."""
        task = self._registered.get(region.name)
        if task is None:
            # One registration, however many batches wait for it.
            task = asyncio.create_task(self._register_once(region))
            self._registered[region.name] = task
        try:
            await asyncio.shield(task)
        except RegionInvalidError:
            self._registered.pop(region.name, None)
            raise
        except InferenceServerException as error:
            self._registered.pop(region.name, None)
            if error.status() in _GONE:
                raise
            if self._shared_memory == "on":
                raise BackendUnavailableError(
                    f"Triton at {self.url} cannot open the gateway's shared memory, and triton_shared_memory is 'on'"
                ) from error
            log.warning(
                "Triton at %s cannot open %s (%s): frames go as bytes", self.url, SHARED_MEMORY, error.message()
            )
            self._by_shared_memory = False
            return False
        return True

    async def _register_once(self, region: Region) -> None:
        _check_name(region)
        self._may_know.setdefault(region.name, True)
        try:
            await self._client.register_system_shared_memory(region.name, f"/{region.file}", region.byte_size)
        except InferenceServerException as error:
            if _REGION_KNOWN not in error.message():
                raise
        try:
            _check_name(region)
        except RegionInvalidError:
            # Triton may have opened another file: it must not keep that one.
            try:
                region.retired |= not await self._unregister(region.name)
            except InferenceServerException:
                region.retired = True
            raise

    def _give_up(self, batch: SlotBatch) -> None:
        """Triton gave no answer and may still write: neither use this memory again nor have Triton unmap it."""
        batch.retire()
        for region in (batch.source.region, batch.answer.region):
            if region.name in self._may_know:
                self._may_know[region.name] = False

    def _note_removed(self) -> None:
        """Take the names of regions that are gone; also while Triton is, or they would pile up."""
        while self._removed:
            name = self._removed.popleft()
            self._registered.pop(name, None)
            if self._may_know.pop(name, False):
                self._unneeded.append(name)

    async def _find_orphans(self) -> None:
        """Look for regions that a killed gateway left mapped: their files are gone, and their memory is not."""
        now = time.monotonic()
        # One that it could register says that it shares our /dev/shm: on another host all would seem to be gone.
        if not (self._by_shared_memory and self._registered) or now < self._swept_at + _SWEEP_EVERY_S:
            return
        self._swept_at = now
        status = await self._client.get_system_shared_memory_status(client_timeout=_POLL_TIMEOUT_S)
        for region in status.regions.values():
            file = region.key.removeprefix("/")
            known = region.name in self._may_know or region.name in self._unneeded
            if file.startswith(_REGION_FILES) and not known and not (SHARED_MEMORY / file).exists():
                log.info("Triton at %s has %s mapped still, whose gateway is gone", self.url, region.name)
                self._unneeded.append(region.name)

    async def _unregister_unneeded(self) -> None:
        for name in list(self._unneeded):
            try:
                done = await self._unregister(name)
            except InferenceServerException as error:
                if error.status() in _GONE:
                    raise
                log.warning("Triton at %s cannot unmap a region: %s", self.url, error.message())
                done = True
            if done:
                self._unneeded.remove(name)

    async def _unregister(self, name: str) -> bool:
        """Have Triton unmap a region; False if it uses it still: it lets go a moment after it has answered."""
        try:
            await self._client.unregister_system_shared_memory(name, client_timeout=_POLL_TIMEOUT_S)
        except InferenceServerException as error:
            if _REGION_IN_USE in error.message():
                return False
            raise
        return True

    async def _unregister_at_last(self, name: str) -> None:
        for pause_s in _LAST_PAUSES_S:
            if await self._unregister(name):
                return
            await asyncio.sleep(pause_s)
        log.warning("Triton at %s keeps %s mapped: it uses it still", self.url, name)

    def _translate(self, status: str, message: str, variant: Variant, batch: SlotBatch) -> Exception:
        if status == "StatusCode.NOT_FOUND" or "unknown model" in message or "is not ready" in message:
            return NotHeldError(f"Triton at {self.url} does not hold {variant.name} now")
        if status in _GONE:
            # The call ended without Triton's word: it may still be at work on these slots.
            self._give_up(batch)
            for region in (batch.source.region, batch.answer.region):
                self._registered.pop(region.name, None)
            return BackendUnavailableError(f"Triton at {self.url} is not there")
        log.error("Triton failed on %s: %s %s", variant.name, status, message)
        return InternalError(f"the inference of {variant.name} failed; the server's log says why")

    async def close(self) -> None:
        """Wait for its batches, let Triton forget our regions if it is there, and close the connection.

        Nobody may look at it any more. The store stays: other endpoints use it.
        """
        self._closed = True
        await self._idle.wait()
        self._frames.unsubscribe(self._removed)
        self._note_removed()
        names = [*self._unneeded, *(name for name, unmappable in self._may_know.items() if unmappable)]
        # All at once: a Triton that hangs is waited for once.
        await asyncio.gather(*(self._unregister_at_last(name) for name in names), return_exceptions=True)
        await self._client.close()
        await self._channel.close()


def _told(error: InferenceServerException | grpc.aio.AioRpcError) -> tuple[str, str]:
    """The status and the message of a call that failed, however it was made."""
    if isinstance(error, grpc.aio.AioRpcError):
        return str(error.code()), error.details() or ""
    return str(error.status()), str(error.message())


def _request(variant: Variant, batch: SlotBatch) -> Any:
    """What Triton is asked, but for where the frames and the answers are."""
    request = service_pb2.ModelInferRequest(model_name=variant.name)
    request.inputs.add(name=INPUT, datatype="UINT8", shape=[len(batch.slots), *batch.layout.input_shape])
    request.outputs.add(name=OUTPUT)
    maps = [slot.colours for slot in batch.slots if slot.colours is not None]
    if maps:
        # The second input of NV12 networks: a few bytes, which go with the call.
        request.inputs.add(name=COLOURS, datatype="FP32", shape=[len(maps), *maps[0].shape])
        request.raw_input_contents.append(np.stack(maps).tobytes())
    return request


def _place(tensor: Any, span: Span) -> None:
    """Let a tensor of a request lie in shared memory."""
    tensor.parameters["shared_memory_region"].string_param = span.region.name
    tensor.parameters["shared_memory_byte_size"].int64_param = span.size
    tensor.parameters["shared_memory_offset"].int64_param = span.offset


def _check_name(region: Region) -> None:
    """Triton opens a region by its name: fail if that means another file by now."""
    if not region.is_at_its_name():
        raise RegionInvalidError("the region's file is gone or was replaced: it must stay until ShareRegion has ended")
