"""Several Tritons and one store of frames: each knows the lanes, one may leave, and the others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from deploy.embedded import EmbeddedTriton
from deploy.embedded.server import free_port
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from service.catalog import Variant
from service.errors import BackendUnavailableError, OverloadedError
from service.frames import SHARED_MEMORY, FrameFormat, FrameStore, Slot, SlotBatch
from service.triton import Triton
from tests.conftest import StartGateway, metric
from upscale_client import UnavailableError, UpscaleClient

FRAME = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
LAYOUT = FrameFormat(64, 96, 2)


class Endpoint:
    """A Triton object and what it told."""

    def __init__(self, url: str, store: FrameStore, **options: Any) -> None:
        self.variants: dict[str, Variant] = {}
        options = {"shared_memory": "on", "infer_timeout_s": 30.0, **options}
        self.triton = Triton(url, store, on_change=self._changed, **options)

    @property
    def variant(self) -> Variant:
        return self.variants["runet_x2_clean"]

    def _changed(self, triton: Triton, variants: list[Variant]) -> None:
        assert triton is self.triton
        self.variants = {variant.name: variant for variant in variants}


def known(url: str) -> set[str]:
    """The regions that a server has mapped."""
    status: Any = InferenceServerClient(url).get_system_shared_memory_status()
    return set(status.regions)


async def until_unknown(lane: str, endpoint: Endpoint) -> None:
    """Look until the server has the region mapped no more; while it lets go, it refuses."""
    for _ in range(20):
        await endpoint.triton.look()
        assert endpoint.triton.up, "a region in use is no reason to take it for gone"
        if lane not in known(endpoint.triton.url):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{lane} is still mapped")


def fill(*slots: Slot) -> SlotBatch:
    for slot in slots:
        slot.source.view[:] = FRAME.tobytes()
        slot.answer.view[:] = bytes(slot.answer.size)
    return SlotBatch(slots)


@pytest.fixture
def store() -> Iterator[FrameStore]:
    before = set(SHARED_MEMORY.glob("upscale-frames-*"))
    store = FrameStore(max_frames=4, max_bytes=8 * LAYOUT.slot_bytes)
    yield store
    assert store.in_use == 0
    store.close()
    assert set(SHARED_MEMORY.glob("upscale-frames-*")) <= before


@pytest.fixture
async def stays(triton: EmbeddedTriton, store: FrameStore) -> AsyncIterator[Endpoint]:
    """An endpoint that is there all the time."""
    endpoint = Endpoint(triton.url, store)
    await endpoint.triton.look()
    before = known(triton.url)
    yield endpoint
    await endpoint.triton.close()
    assert known(triton.url) <= before, "it left regions behind"


async def test_one_endpoint_leaves_and_the_other_goes_on(
    own_triton: EmbeddedTriton, store: FrameStore, stays: Endpoint
) -> None:
    leaves = Endpoint(own_triton.url, store)
    await leaves.triton.look()
    assert leaves.variant == stays.variant

    slots = [store.take(LAYOUT) for _ in range(3)]
    lane = slots[0].source.region.name
    await asyncio.gather(
        leaves.triton.infer(leaves.variant, fill(*slots[:2])), stays.triton.infer(stays.variant, fill(slots[2]))
    )
    answer = bytes(slots[0].answer.view)
    assert any(answer)
    assert answer == slots[1].answer.view == slots[2].answer.view
    assert lane in known(own_triton.url) & known(stays.triton.url)

    running = asyncio.create_task(leaves.triton.infer(leaves.variant, fill(slots[0])))
    await asyncio.sleep(0)
    await leaves.triton.close()
    assert running.done(), "its last batch was waited for"
    await running
    assert slots[0].answer.view == answer
    assert known(own_triton.url) == set()
    with pytest.raises(BackendUnavailableError, match="not used any more"):
        await leaves.triton.infer(leaves.variant, SlotBatch(slots[:1]))

    await stays.triton.infer(stays.variant, fill(*slots))
    assert slots[2].answer.view == answer
    for slot in slots:
        slot.release()
    with store.take(FrameFormat(96, 96, 2)):  # the idle lane makes room
        assert lane in known(stays.triton.url)
        await until_unknown(lane, stays)


async def test_an_endpoint_that_comes_back_may_know_the_lanes_still(
    own_triton: EmbeddedTriton, store: FrameStore
) -> None:
    with store.take(LAYOUT) as slot:
        first, second = Endpoint(own_triton.url, store), Endpoint(own_triton.url, store)
        for endpoint in (first, second):  # the first one leaves without a word
            await endpoint.triton.look()
            await endpoint.triton.infer(endpoint.variant, fill(slot))
            assert any(slot.answer.view)
        await second.triton.close()
        assert known(own_triton.url) == set()


async def test_a_lane_that_one_endpoint_may_still_write_to_is_unmapped_by_the_other_only(
    own_triton: EmbeddedTriton, store: FrameStore, stays: Endpoint
) -> None:
    hangs = Endpoint(own_triton.url, store, infer_timeout_s=0.5)
    await hangs.triton.look()
    slot = store.take(LAYOUT)
    lane = slot.source.region.name
    await hangs.triton.infer(hangs.variant, fill(slot))
    await stays.triton.infer(stays.variant, fill(slot))
    with own_triton.hanging():
        with pytest.raises(BackendUnavailableError, match="gave no answer"):
            await hangs.triton.infer(hangs.variant, fill(slot))
        slot.release()
        store.take(LAYOUT).release()  # and the retired lane goes
    await hangs.triton.look()
    await until_unknown(lane, stays)
    assert lane in known(own_triton.url)
    await hangs.triton.close()
    assert lane in known(own_triton.url)


async def test_an_endpoint_that_is_not_there_neither_hoards_names_nor_holds_up_its_leaving(store: FrameStore) -> None:
    endpoint = Endpoint(f"127.0.0.1:{free_port()}", store)
    removed = endpoint.triton._mappings._removed  # pyright: ignore[reportPrivateUsage]
    store.take_apart(LAYOUT, 1)[0].release()
    assert len(removed) == 1
    await endpoint.triton.look()
    assert (len(removed), endpoint.triton.up) == (0, False)
    await asyncio.wait_for(endpoint.triton.close(), 3)
    store.take_apart(LAYOUT, 1)[0].release()
    assert not removed


@pytest.mark.parametrize("shared_memory", ["on", "off"])
async def test_a_warm_up_takes_the_way_of_frames_and_leaves_nothing(
    store: FrameStore, stays: Endpoint, shared_memory: str
) -> None:
    endpoint = Endpoint(stays.triton.url, store, shared_memory=shared_memory)
    await endpoint.triton.look()
    before = known(stays.triton.url)
    assert 0 < await endpoint.triton.warm_up(stays.variant, LAYOUT, 2) < 10
    assert (store.in_use, store.byte_size) == (0, 0)
    for new in known(stays.triton.url) - before:
        await until_unknown(new, endpoint)
    held = [store.take(LAYOUT) for _ in range(3)]
    with pytest.raises(OverloadedError):
        await endpoint.triton.warm_up(stays.variant, LAYOUT, 2)
    for slot in held:
        slot.release()
    with pytest.raises(BackendUnavailableError, match="does not hold"):
        await endpoint.triton.warm_up(Variant("none", "runet", 2, "clean", 8, True, 1), LAYOUT, 1)
    assert store.in_use == 0
    await endpoint.triton.close()


async def test_an_nv12_network_is_warmed_up_with_its_colours(tmp_path: Path, store: FrameStore) -> None:
    export_variant(get("runet"), 2, "clean", repository=tmp_path, weights=WEIGHTS_DIR, pixel_format="nv12")
    with EmbeddedTriton(tmp_path) as server:
        endpoint = Endpoint(server.url, store)
        await endpoint.triton.look()
        (variant,) = endpoint.variants.values()
        assert variant.pixels == "nv12"
        assert await endpoint.triton.warm_up(variant, FrameFormat(64, 96, 2, "nv12"), 3) > 0
        await endpoint.triton.close()
        assert known(server.url) == set()


async def test_an_endpoint_that_was_gone_for_a_moment_is_used_again_without_timing_all_anew(
    repository: Path, start_gateway: StartGateway
) -> None:
    def inferred() -> int:
        statistics: Any = InferenceServerClient(server.url).get_inference_statistics()
        return sum(model.execution_count for model in statistics.model_stats)

    with EmbeddedTriton(repository) as server:
        by_itself = inferred()  # Triton warms its models up on its own
        gateway = start_gateway(server.url, warm_up_s=8)
        timed = inferred() - by_itself
        times = metric(gateway, "upscale_batch_predicted_seconds")
        server.kill()
        with UpscaleClient(gateway.address) as client:
            while metric(gateway, "upscale_triton_up"):  # its breaker opens meanwhile
                with pytest.raises(UnavailableError):
                    client.upscale(FRAME, timeout_s=30)
            server.start()
            deadline = time.monotonic() + 60
            while True:
                try:
                    assert client.upscale(FRAME, timeout_s=30).width == 288
                    break
                except UnavailableError:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
        assert timed > 3, "there was more to time than the one frame by which it is known again"
        assert inferred() - by_itself <= 3
        while metric(gateway, "upscale_batch_predicted_seconds") < times / 2:  # it is told five times a second
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        gateway.stop()


async def test_what_a_killed_gateway_left_mapped_is_unmapped_by_the_next(
    own_triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    killed = start_gateway(own_triton.url)
    with UpscaleClient(killed.address) as client:
        client.upscale(FRAME)
        shared = client.shared_frames(96, 64, scale=2)
        shared.upscale()
        before = known(own_triton.url)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        shared.close()
    assert len(before) == 2
    assert known(own_triton.url) == before
    follows = start_gateway(own_triton.url)
    with UpscaleClient(follows.address) as client:
        client.upscale(FRAME)  # says that it shares the memory with Triton
        deadline = time.monotonic() + 30
        while known(own_triton.url) & before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert client.upscale(FRAME).width == 288
    follows.stop()
