"""Which regions a Triton has mapped: it is told of them when it needs them, and to let them go when nobody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Literal

from tritonclient.utils import InferenceServerException

from service.errors import BackendUnavailableError, RegionInvalidError
from service.frames import SHARED_MEMORY, FrameStore, Region, SlotBatch

log = logging.getLogger(__name__)

POLL_TIMEOUT_S = 2.0
"""What Triton is asked beside inference is answered by then, or it is taken for hung."""
GONE = frozenset({"StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED"})
"""How a call ends without Triton's word."""
# What Triton says when it knew a region all along: it was taken for gone, or we were.
_REGION_KNOWN = "already in manager"
_REGION_IN_USE = "currently in use"
_REGION_FILES = ("upscale-frames-", "upscale-client-")
_SWEEP_EVERY_S = 5.0
_LAST_PAUSES_S = (0.01, 0.04, 0.2, 1.0)


class Mappings:
    """Of one Triton.

    Args:
        url: host and port of its gRPC endpoint.
        client: tritonclient's, for asyncio.
        frames: the store that says which regions are gone.
        shared_memory: "auto", "on" or "off"; see `Settings.triton_shared_memory`.
    """

    def __init__(self, url: str, client: Any, frames: FrameStore, shared_memory: Literal["auto", "on", "off"]) -> None:
        self._url = url
        self._client = client
        self._frames = frames
        self._removed = frames.subscribe()
        self._wanted = shared_memory
        self._possible = shared_memory != "off"
        self._registered: dict[str, asyncio.Task[None]] = {}
        self._may_know: dict[str, bool] = {}
        """Names of regions that Triton was told of, even if it may have forgotten them since, and whether it may be
        told to unmap them: not after a batch without an answer, for it may still write there."""
        self._unneeded: list[str] = []
        """Names that it is still to be told to unmap."""
        self._swept_at = 0.0

    async def hold(self, regions: Iterable[Region]) -> bool:
        """Have Triton map these regions, if it has not; False if frames must go as bytes.

        Raises:
            RegionInvalidError: one is not at its name any more.
            BackendUnavailableError: Triton cannot open it, and bytes are not allowed.
            InferenceServerException: Triton is not there.
        """
        return self._possible and all([await self._register(region) for region in regions])

    def forget(self) -> None:
        """Triton has restarted, or is gone: it is told of every region anew, wherever it runs by then."""
        self._registered.clear()
        self._possible = self._wanted != "off"

    def give_up(self, batch: SlotBatch) -> None:
        """Triton gave no answer and may still write: neither use this memory again nor have Triton unmap it."""
        batch.retire()
        for region in (batch.source.region, batch.answer.region):
            if region.name in self._may_know:
                self._may_know[region.name] = False
            self._registered.pop(region.name, None)

    def note_removed(self) -> None:
        """Take the names of regions that are gone; also while Triton is, or they would pile up."""
        while self._removed:
            name = self._removed.popleft()
            self._registered.pop(name, None)
            if self._may_know.pop(name, False):
                self._unneeded.append(name)

    async def tidy(self) -> None:
        """Have Triton unmap what nobody needs; to be called again and again while it is there.

        Raises:
            InferenceServerException: Triton is not there.
        """
        await self._find_orphans()
        await self._unregister_unneeded()

    async def close(self) -> None:
        """Have Triton unmap everything, if it is there."""
        self._frames.unsubscribe(self._removed)
        self.note_removed()
        names = [*self._unneeded, *(name for name, unmappable in self._may_know.items() if unmappable)]
        # All at once: a Triton that hangs is waited for once.
        await asyncio.gather(*(self._unregister_at_last(name) for name in names), return_exceptions=True)

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
            if error.status() in GONE:
                raise
            if self._wanted == "on":
                raise BackendUnavailableError(
                    f"Triton at {self._url} cannot open the gateway's shared memory, and triton_shared_memory is 'on'"
                ) from error
            log.warning(
                "Triton at %s cannot open %s (%s): frames go as bytes", self._url, SHARED_MEMORY, error.message()
            )
            self._possible = False
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

    async def _find_orphans(self) -> None:
        """Look for regions that a killed gateway left mapped: their files are gone, and their memory is not."""
        now = time.monotonic()
        # One that it could register says that it shares our /dev/shm: on another host all would seem to be gone.
        if not (self._possible and self._registered) or now < self._swept_at + _SWEEP_EVERY_S:
            return
        self._swept_at = now
        status = await self._client.get_system_shared_memory_status(client_timeout=POLL_TIMEOUT_S)
        for region in status.regions.values():
            file = region.key.removeprefix("/")
            known = region.name in self._may_know or region.name in self._unneeded
            if file.startswith(_REGION_FILES) and not known and not (SHARED_MEMORY / file).exists():
                log.info("Triton at %s has %s mapped still, whose gateway is gone", self._url, region.name)
                self._unneeded.append(region.name)

    async def _unregister_unneeded(self) -> None:
        for name in list(self._unneeded):
            try:
                done = await self._unregister(name)
            except InferenceServerException as error:
                if error.status() in GONE:
                    raise
                log.warning("Triton at %s cannot unmap a region: %s", self._url, error.message())
                done = True
            if done:
                self._unneeded.remove(name)

    async def _unregister(self, name: str) -> bool:
        """Have Triton unmap a region; False if it uses it still: it lets go a moment after it has answered."""
        try:
            await self._client.unregister_system_shared_memory(name, client_timeout=POLL_TIMEOUT_S)
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
        log.warning("Triton at %s keeps %s mapped: it uses it still", self._url, name)


def _check_name(region: Region) -> None:
    """Triton opens a region by its name: fail if that means another file by now."""
    if not region.is_at_its_name():
        raise RegionInvalidError("the region's file is gone or was replaced: it must stay until ShareRegion has ended")
