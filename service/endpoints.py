"""All Triton endpoints: found, watched, timed before they are used, and left alone while they fail."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

from service.breaker import Breaker, State
from service.catalog import Variant
from service.discovery import Discovery
from service.errors import BackendUnavailableError, NotHeldError, UpscaleError
from service.frames import FrameFormat, FrameStore, SlotBatch
from service.scheduler import BatchTime, Scheduler
from service.settings import Settings
from service.triton import Triton

log = logging.getLogger(__name__)

_AS_BEFORE = 2.0
"""An endpoint that comes back is as fast as it was if a frame takes no more than so many times what one took."""


class Endpoint:
    """A Triton as the scheduler sees it: there once it is warm, and not while its breaker is open.

    Args:
        url: host and port of its gRPC endpoint.
        on_change: called when it is another than before.
    """

    def __init__(
        self, url: str, settings: Settings, frames: FrameStore, scheduler: Scheduler, on_change: Callable[[], None]
    ) -> None:
        self.url = url
        self._settings = settings
        self._scheduler = scheduler
        self._on_change = on_change
        self._breaker = Breaker()
        self._triton = Triton(
            url,
            frames,
            shared_memory=settings.triton_shared_memory,
            infer_timeout_s=settings.infer_timeout_s,
            on_change=lambda _, variants: self._looked(variants),
        )
        self._held: dict[str, Variant] = {}
        """What Triton holds."""
        self._warm: set[str] = set()
        self._before: list[BatchTime] = []
        """How long its batches took when it was last there."""
        self._serving: dict[str, Variant] = {}
        self._warming: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether it can be reached."""
        return self._triton.up

    @property
    def breaker(self) -> State:
        """Open while it is left alone."""
        return self._breaker.state

    @property
    def serving(self) -> Sequence[Variant]:
        """What it may be sent now."""
        return list(self._serving.values())

    async def start(self) -> None:
        """Look at it for the first time, and keep looking."""
        await self._triton.look()
        self._watching = asyncio.create_task(self._triton.watch(self._settings.triton_poll_s))

    async def close(self) -> None:
        """Send it nothing more, wait for its last batches, and have it forget our memory."""
        tasks = [task for task in (self._watching, self._warming) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._serve({})
        await self._triton.close()

    async def infer(self, variant: Variant, batch: SlotBatch) -> None:
        """As `Triton.infer`; the breaker is told how it ended."""
        if self._breaker.state != "closed":
            raise BackendUnavailableError(f"Triton at {self.url} is left alone for a while: it failed again and again")
        try:
            await self._triton.infer(variant, batch)
        except NotHeldError:
            raise
        except BackendUnavailableError:
            self._breaker.failed(time.monotonic())
            if self._breaker.state != "closed":
                log.warning("Triton at %s failed again and again: it is left alone for a while", self.url)
                self._serve({})
            raise
        self._breaker.succeeded()

    def _looked(self, held: Sequence[Variant]) -> None:
        """Triton was looked at; it holds these."""
        self._held = {variant.name: variant for variant in held}
        self._warm &= self._held.keys()
        if not held:
            self._breaker = Breaker()  # it is gone: what comes back begins anew
        closed = self._breaker.state == "closed"
        self._serve({name: variant for name, variant in self._held.items() if closed and name in self._warm})
        if self._held and self._warming is None:
            if not closed and self._breaker.allows(time.monotonic()):
                self._warming = asyncio.create_task(self._try())
            elif closed and self._held.keys() - self._warm:
                self._warming = asyncio.create_task(self._warm_up())

    def _serve(self, variants: dict[str, Variant]) -> None:
        if variants != self._serving:
            self._serving = variants
            if variants:
                self._scheduler.join(self, variants.values())
            else:
                self._before = [time for time in self._scheduler.times() if time.endpoint == self.url]
                self._scheduler.leave(self.url)
        self._on_change()

    async def _try(self) -> None:
        """See with a small black frame whether it works again; nobody's frame is risked for that."""
        variant = next(iter(self._held.values()))
        side = self._settings.min_side
        self._breaker.began(time.monotonic())
        try:
            await self._triton.warm_up(variant, FrameFormat(side, side, variant.scale, variant.pixels), 1)
        except BackendUnavailableError:
            self._breaker.failed(time.monotonic())
        except UpscaleError:
            self._breaker.undecided()
        else:
            self._breaker.succeeded()
            self._recall()
            log.info("Triton at %s works again", self.url)
        finally:
            self._warming = None
        self._looked(list(self._held.values()))

    async def _warm_up(self) -> None:
        """See how long batches of what is new take."""
        new = sorted((variant for variant in self._held.values() if variant.name not in self._warm), key=self._rank)
        try:
            self._warm |= await self._remember(new) or await self._time(new)
        except BackendUnavailableError as error:
            log.warning("the endpoint is not used yet: %s", error)
            return  # the next look begins anew
        finally:
            self._warming = None
        self._looked(list(self._held.values()))

    async def _remember(self, new: Sequence[Variant]) -> set[str]:
        """Take what it took before for what it takes now, if one frame takes as long; returns whose times are known.

        An endpoint that was gone for a moment is used again at once, and not only after all its batches were timed.
        """
        singles = [each for each in self._before if each.frames == 1]
        for variant in new:
            layouts = {each.layout.input_bytes: each for each in singles if each.variant == variant.name}
            if layouts:
                break
        else:
            return set()
        probe = layouts[max(layouts)]
        try:
            seconds = await self._triton.warm_up(variant, probe.layout, 1)
        except BackendUnavailableError:
            raise
        except UpscaleError as error:
            log.warning("whether Triton at %s is as fast as before is not known: %s", self.url, error)
            seconds = math.inf
        if seconds > _AS_BEFORE * probe.seconds:
            self._before = []
        return self._recall()

    def _recall(self) -> set[str]:
        """Let the scheduler know what batches took before; returns whose that were."""
        before = [each for each in self._before if each.variant in self._held]
        self._before = []
        for each in before:
            self._scheduler.measured(self.url, self._held[each.variant], each.layout, each.frames, each.seconds)
        return {each.variant for each in before}

    async def _time(self, new: Sequence[Variant]) -> set[str]:
        """Time batches, the most wanted first, as long as there is time for it; returns the variants' names."""
        ends = time.monotonic() + self._settings.warm_up_s
        alone: dict[str, float] = {}
        for variant, frames in _in_turn(new):
            # It is inferred twice.
            if time.monotonic() + 2 * frames * alone.get(variant.name, 0.0) >= ends:
                continue
            layout = self._largest(variant)
            try:
                seconds = await self._triton.warm_up(variant, layout, frames)
            except BackendUnavailableError:
                raise
            except UpscaleError as error:
                log.warning("%d frame(s) of %s were not timed: %s", frames, variant.name, error)
                continue
            alone.setdefault(variant.name, seconds)
            self._scheduler.measured(self.url, variant, layout, frames, seconds)
        return {variant.name for variant in new}

    def _rank(self, variant: Variant) -> tuple[bool, int]:
        models = [self._settings.default_model, *self._settings.ladder_models]
        wanted = models.index(variant.model) if variant.model in models else len(models)
        return variant.profile != self._settings.default_profile, wanted

    def _largest(self, variant: Variant) -> FrameFormat:
        """The largest frame of 16:9 that the variant may be sent."""
        unit = math.sqrt(self._settings.max_output_pixels / (16 * 9)) / variant.scale
        width, height = (max(self._settings.min_side, int(sides * unit) // 2 * 2) for sides in (16, 9))
        return FrameFormat(height, width, variant.scale, variant.pixels)


class Endpoints:
    """All there are; they come and go as the setting `triton_url` says.

    Args:
        on_change: called when one of them is another than before.
    """

    def __init__(
        self, settings: Settings, frames: FrameStore, scheduler: Scheduler, on_change: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._frames = frames
        self._scheduler = scheduler
        self._on_change = on_change
        self._discovery = Discovery(settings.triton_url)
        self._all: dict[str, Endpoint] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._all.values())

    async def look(self) -> None:
        """Find out which there are; look at the new ones, and leave those that are gone."""
        found = await self._discovery.look()
        new = [
            Endpoint(url, self._settings, self._frames, self._scheduler, self._on_change)
            for url in sorted(found - self._all.keys())
        ]
        staying = any(endpoint.serving for url, endpoint in self._all.items() if url in found)
        for url in self._all.keys() - found:
            if self._all[url].serving and not staying:
                continue  # where all are exchanged at once, the old ones stay until a new one serves
            log.info("Triton at %s is not used any more", url)
            task = asyncio.create_task(self._all.pop(url).close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            self._on_change()
        for endpoint in new:
            self._all[endpoint.url] = endpoint
        await asyncio.gather(*(endpoint.start() for endpoint in new))

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.triton_poll_s)
            try:
                await self.look()
            except Exception:
                log.exception("finding Triton failed. This is a bug.")  # which must not end the watch

    async def close(self) -> None:
        """Leave all."""
        await asyncio.gather(*(endpoint.close() for endpoint in self._all.values()), *self._leaving)


def _in_turn(variants: Sequence[Variant]) -> Iterator[tuple[Variant, int]]:
    """What to time, the most telling first: single frames, full batches, then the powers of two between."""
    for variant in variants:
        yield variant, 1
    for variant in variants:
        if variant.max_batch_frames > 1:
            yield variant, variant.max_batch_frames
    for variant in variants:
        frames = 2
        while frames < variant.max_batch_frames:
            yield variant, frames
            frames *= 2
