"""Deadlines, ladders and endpoints on the real service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from tests.conftest import StartGateway, metric, until_nothing_is_held
from upscale_client import AsyncUpscaleClient, BudgetTooSmallError, UpscaleClient, Upscaled, UpscaleError

FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
SMALL_PIXELS = 640 * 360


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton with RUNet and bicubic at x2."""
    folder = tmp_path_factory.mktemp("ladder")
    for model in ("runet", "bicubic"):
        export_variant(get(model), 2, "clean", repository=folder, weights=WEIGHTS_DIR)
    with EmbeddedTriton(folder) as server:
        yield server


def times(client: UpscaleClient, variant: str) -> dict[tuple[int, int, int], float]:
    """Predicted seconds by width, height and frames."""
    (found,) = [each for each in client.list_models() if each.name == variant]
    return {(each.width, each.height, each.frames): each.predicted_s for each in found.batch_times}


def test_batches_are_timed_before_the_first_frame_comes(ladder: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(ladder.url, warm_up_s=20, max_output_pixels=SMALL_PIXELS)
    with UpscaleClient(gateway.address) as client:
        of_runet, of_bicubic = times(client, "runet_x2_clean"), times(client, "bicubic_x2_clean")
        assert set(of_runet) == set(of_bicubic) == {(320, 180, frames) for frames in (1, 2, 4, 8)}
        assert 0 < of_runet[320, 180, 1] < of_runet[320, 180, 8] < 16 * of_runet[320, 180, 1]
        assert metric(gateway, 'upscale_batch_predicted_seconds{endpoint="' + ladder.url) > 0
        hd = np.zeros((180, 320, 3), np.uint8)
        assert client.upscale(hd, budget_s=10).width == 640
        with pytest.raises(BudgetTooSmallError, match=r"runet_x2_clean takes [0-9.]+ ms for a frame of 320x180"):
            client.upscale(hd, budget_s=of_runet[320, 180, 1] / 4)
        assert metric(gateway, 'upscale_shed_total{reason="budget_too_small"') == 1
    gateway.stop()


def test_a_lesser_network_answers_if_it_may_and_the_better_one_cannot(
    ladder: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(ladder.url, warm_up_s=20, max_output_pixels=1280 * 720)
    frame = np.zeros((360, 640, 3), np.uint8)
    with UpscaleClient(gateway.address) as client:
        runet, bicubic = (times(client, f"{model}_x2_clean")[640, 360, 1] for model in ("runet", "bicubic"))
        assert bicubic < runet, "the ladder goes down"
        client.upscale(frame)
        between = (runet + bicubic) / 2
        answer = client.upscale(frame, budget_s=between, step_down=True)
        assert (answer.model, answer.variant) == ("bicubic", "bicubic_x2_clean")
        assert client.upscale(frame, budget_s=30, step_down=True).variant == "runet_x2_clean"
        with pytest.raises(BudgetTooSmallError):
            client.upscale(frame, budget_s=between)
        stepped = 'upscale_stepped_down_total{asked="runet_x2_clean",variant="bicubic_x2_clean"}'
        assert metric(gateway, stepped) == 1
    gateway.stop()


async def until_served(gateway: GatewayProcess, *urls: str) -> None:
    """Wait until these endpoints, and no others, are used."""
    deadline = time.monotonic() + 20
    while True:
        up = {url for url in urls if metric(gateway, f'upscale_triton_up{{endpoint="{url}"}}') == 1}
        if up == set(urls) and metric(gateway, "upscale_triton_up") == len(urls):
            return
        assert time.monotonic() < deadline, f"only {up} are used"
        await asyncio.sleep(0.1)


async def test_endpoints_come_and_go_as_a_file_says_and_no_frame_is_lost(
    repository: Path, triton: EmbeddedTriton, start_gateway: StartGateway, tmp_path: Path
) -> None:
    places = tmp_path / "endpoints"
    places.write_text(f"{triton.url}  # stays\n")
    gateway = start_gateway(f"file:{places}", triton_poll_s=0.1)
    answers: list[Upscaled] = []

    async def ask(client: AsyncUpscaleClient, until: asyncio.Event) -> None:
        while not until.is_set():
            answers.append(await client.upscale(FRAME, scale=2))

    with EmbeddedTriton(repository) as second:
        async with AsyncUpscaleClient(gateway.address) as client:
            stop = asyncio.Event()
            asking = [asyncio.create_task(ask(client, stop)) for _ in range(6)]
            await until_served(gateway, triton.url)
            replace(places, f"{triton.url}\n{second.url}\n")
            await until_served(gateway, triton.url, second.url)
            await asyncio.sleep(1)
            replace(places, f"{second.url}\n")
            await until_served(gateway, second.url)
            await asyncio.sleep(1)
            replace(places, f"{triton.url}\n")
            await until_served(gateway, triton.url)
            stop.set()
            await asyncio.gather(*asking)
    assert len(answers) > 20
    assert len({answer.array.tobytes() for answer in answers}) == 1
    until_nothing_is_held(gateway)
    gateway.stop()


def replace(file: Path, text: str) -> None:
    """As an operator should: as a whole."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


async def test_when_an_endpoint_dies_its_frames_are_inferred_by_another(
    own_triton: EmbeddedTriton, triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(f"{own_triton.url},{triton.url}")
    async with AsyncUpscaleClient(gateway.address) as client:
        await until_served(gateway, own_triton.url, triton.url)
        right = (await client.upscale(FRAME, scale=2)).array
        big = np.zeros((540, 960, 3), np.uint8)
        in_flight = [asyncio.create_task(client.upscale(big, scale=2, timeout_s=120)) for _ in range(8)]
        await asyncio.sleep(0.15)
        own_triton.kill()
        answers = await asyncio.gather(*in_flight)
        assert all(np.array_equal(answer.array, answers[0].array) for answer in answers)
        assert metric(gateway, f'upscale_batch_failures_total{{endpoint="{own_triton.url}"') >= 1
        assert metric(gateway, f'upscale_batch_failures_total{{endpoint="{triton.url}"') == 0
        for _ in range(5):
            assert np.array_equal((await client.upscale(FRAME, scale=2)).array, right)
    until_nothing_is_held(gateway)
    gateway.stop()


async def test_an_endpoint_that_hangs_is_left_alone_until_it_answers_again(
    own_triton: EmbeddedTriton, triton: EmbeddedTriton, start_gateway: StartGateway
) -> None:
    # So seldom looked at that only its batches can show it.
    gateway = start_gateway(f"{own_triton.url},{triton.url}", infer_timeout_s=0.7, triton_poll_s=0.5)
    hung = f'upscale_breaker_open{{endpoint="{own_triton.url}"}}'
    async with AsyncUpscaleClient(gateway.address) as client:
        await until_served(gateway, own_triton.url, triton.url)
        await asyncio.gather(*(client.upscale(FRAME, scale=2) for _ in range(8)))
        with own_triton.hanging():
            ends = time.monotonic() + 20
            while not metric(gateway, hung) and metric(gateway, "upscale_triton_up") == 2:
                results = await asyncio.gather(
                    *(client.upscale(FRAME, scale=2) for _ in range(4)), return_exceptions=True
                )
                assert all(isinstance(result, Upscaled) for result in results), results
                assert time.monotonic() < ends, "it was never left alone"
            began = time.monotonic()
            for _ in range(5):
                await client.upscale(FRAME, scale=2)
            assert time.monotonic() - began < 0.7, "nobody waits for the one that hangs"
        ends = time.monotonic() + 20
        while metric(gateway, hung) or metric(gateway, "upscale_triton_up") < 2:
            assert time.monotonic() < ends, "it is not used again"
            await asyncio.sleep(0.1)
    until_nothing_is_held(gateway)
    gateway.stop()


async def test_offline_frames_give_way_to_live_ones(triton: EmbeddedTriton, start_gateway: StartGateway) -> None:
    gateway = start_gateway(triton.url)
    # The first one keeps Triton busy while the others arrive.
    large, small = np.zeros((1080, 1920, 3), np.uint8), np.zeros((270, 480, 3), np.uint8)
    begun = "upscale_batch_frames_count"
    order: list[str] = []

    async def ask(client: AsyncUpscaleClient, frame: NDArray[np.uint8], priority: Literal["live", "offline"]) -> None:
        await client.upscale(frame, scale=2, priority=priority)
        order.append(priority)

    async with AsyncUpscaleClient(gateway.address) as client:
        for frame in (large, small):
            await client.upscale(frame, scale=2)
        before = metric(gateway, begun)
        first = asyncio.create_task(ask(client, large, "live"))
        while await asyncio.to_thread(metric, gateway, begun) == before:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.001)
        kinds: list[Literal["live", "offline"]] = ["offline", "offline", "live", "live"]
        others = [asyncio.create_task(ask(client, small, kind)) for kind in kinds]
        await asyncio.gather(first, *others)
    assert order == ["live", "live", "live", "offline", "offline"]
    gateway.stop()


def test_an_endpoint_that_cannot_be_is_refused_with_what_can(start_gateway: StartGateway) -> None:
    with pytest.raises((UpscaleError, ValueError), match="comma-separated list of host:port"):
        start_gateway("http://triton:8001")
