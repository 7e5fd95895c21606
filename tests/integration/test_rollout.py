"""Another version of a network takes over in running Tritons, under load: no frame fails, none is a mixture."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import InferenceServerClient, InferInput
from typer.testing import CliRunner, Result

from deploy.embedded import EmbeddedTriton
from deploy.rollout import rollout, versions_served
from export.cli import app as export_app
from export.repository import CONFIG
from export.triton_config import served_versions
from models.registry import get
from models.weights import WEIGHTS_DIR, weights_path
from service.catalog import Variant
from service.frames import FrameStore
from service.triton import Triton
from tests.conftest import StartGateway
from upscale_client import AsyncUpscaleClient

VARIANT = "bicubic_plus_plus_x3_clean"
FRAME = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


ROLLOUT = typer.Typer()
ROLLOUT.command()(rollout)


def run(app: typer.Typer, *arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A repository with a network and, beside it as version 2, the same one trained again."""
    folder = tmp_path_factory.mktemp("two-versions")
    again = folder / "weights"
    again.mkdir()
    spec = get("bicubic_plus_plus")
    shutil.copy(weights_path(spec, 3, "compressed", WEIGHTS_DIR), weights_path(spec, 3, "clean", again))
    repository = folder / "models"
    what = ("--model", spec.name, "--scale", 3, "--profile", "clean", "--pixel-format", "rgb24")
    with pytest.MonkeyPatch.context() as patch:
        # What Triton infers before it calls a version ready: a whole frame takes seconds on a busy CPU.
        patch.setattr("export.exporter.FRAMES", {3: (90, 160)})
        for version, weights in ((1, WEIGHTS_DIR), (2, again)):
            done = run(export_app, *what, "--weights", weights, "--repository", repository, "--version", version)
            assert done.exit_code == 0, done.output
        yield repository


@pytest.fixture(scope="module")
def tritons(two_versions: Path) -> Iterator[list[EmbeddedTriton]]:
    """Two of them, on the same repository."""
    with ExitStack() as stack:
        yield [stack.enter_context(EmbeddedTriton(two_versions, threads=1)) for _ in range(2)]


def asked_directly(url: str, version: str) -> bytes:
    """Triton's own answer by one version."""
    frame = InferInput("lr_frames", [1, *FRAME.shape], "UINT8")
    frame.set_data_from_numpy(FRAME[None])
    answer: Any = InferenceServerClient(url).infer(VARIANT, [frame], model_version=version)
    return answer.as_numpy("sr_frames").tobytes()


class Load:
    """Frames, sent without a pause; a frame that fails ends its sender, and `stop` tells."""

    def __init__(self, client: AsyncUpscaleClient, frames: int = 4) -> None:
        self._client = client
        self._stopping = False
        self._since: list[bytes] = []
        self._least = 0
        self._enough = asyncio.Event()
        self._tasks = [asyncio.create_task(self._send()) for _ in range(frames)]

    async def _send(self) -> None:
        while not self._stopping:
            began = self._since
            answer = (await self._client.upscale(FRAME)).array.tobytes()
            if began is self._since:
                self._since.append(answer)
                if len(self._since) >= self._least:
                    self._enough.set()

    async def answers(self, least: int = 20) -> set[bytes]:
        """The answers to some frames that are sent from now on."""
        self._since, self._least = [], least
        self._enough.clear()
        async with asyncio.timeout(60):
            await self._enough.wait()
        return set(self._since)

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)


async def test_a_version_takes_over_under_load(
    two_versions: Path, tritons: list[EmbeddedTriton], start_gateway: StartGateway
) -> None:
    urls = [triton.url for triton in tritons]

    async def have(triton: str, *more: object) -> Result:
        return await asyncio.to_thread(run, ROLLOUT, VARIANT, "--triton", triton, *more)

    gateway = start_gateway(",".join(urls), default_model="bicubic_plus_plus", triton_poll_s=0.05)
    first = asked_directly(urls[0], "1")
    async with AsyncUpscaleClient(gateway.address) as client:
        load = Load(client)
        assert await load.answers() == {first}, "version 2 lies there, and is not served"

        done = await have(urls[0], "--version", 2)
        assert (done.exit_code, done.stdout) == (0, f"{urls[0]}: {VARIANT} 1 -> 2\n"), done.stderr
        second = asked_directly(urls[0], "2")
        assert second != first
        seen: set[bytes] = set()
        async with asyncio.timeout(60):
            while seen != {first, second}:
                seen |= await load.answers(4)
                assert seen <= {first, second}, "the canary answers some frames, and each by one version"

        done = await have(urls[1], "--version", 1, "--version", 2)
        assert done.stdout == f"{urls[1]}: {VARIANT} 1 -> 1, 2\n", done.stderr
        assert asked_directly(urls[1], "1") == first, "both are there"
        assert await load.answers() == {second}, "of two versions the latest answers"

        done = await have(",".join(urls), "--version", 2, "--repository", two_versions)
        assert done.exit_code == 0, done.stderr
        assert f"{VARIANT}: 2 from now on" in done.stdout
        assert served_versions((two_versions / VARIANT / CONFIG).read_text()) == [2], "for Tritons that start later"
        assert await load.answers() == {second}

        broken = two_versions / VARIANT / "3"
        broken.mkdir()
        (broken / "model.onnx").write_bytes(b"not a model")
        done = await have(",".join(urls), "--version", 3, "--repository", two_versions)
        assert done.exit_code == 2
        assert "deploy.rollout: Triton at" in done.stderr
        assert await load.answers() == {second}, "what cannot be loaded replaces nothing"
        assert served_versions((two_versions / VARIANT / CONFIG).read_text()) == [2]

        done = await have(",".join(urls), "--version", 1, "--repository", two_versions)
        assert done.exit_code == 0, done.stderr
        assert await load.answers() == {first}, "and back"
        await load.stop()
    gateway.stop()


async def test_what_a_version_needs_is_asked_again_when_it_comes(tritons: list[EmbeddedTriton]) -> None:
    """The gateway asks for a configuration once: another version may bring another one."""
    found: list[Variant] = []
    store = FrameStore(max_frames=1, max_bytes=1 << 20)
    triton = Triton(
        tritons[0].url,
        store,
        shared_memory="auto",
        infer_timeout_s=10,
        on_change=lambda _, variants: found.extend(variants),
    )
    await triton.look()
    direct = InferenceServerClient(tritons[0].url)
    answer: Any = direct.get_model_config(VARIANT)
    config = MessageToDict(answer.config, preserving_proto_field_name=True)
    config |= {"version_policy": {"specific": {"versions": [2]}}, "max_batch_size": 4}
    direct.load_model(VARIANT, config=json.dumps(config))
    await triton.look()
    await triton.close()
    store.close()
    assert [found[0].max_batch_frames, found[-1].max_batch_frames] == [8, 4]


def test_a_variant_that_is_not_loaded_is_loaded(tritons: list[EmbeddedTriton]) -> None:
    url = tritons[1].url
    InferenceServerClient(url).unload_model(VARIANT)
    deadline = time.monotonic() + 30
    while versions_served(url, VARIANT):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = run(ROLLOUT, VARIANT, "--triton", url, "--version", 2)
    assert (done.exit_code, done.stdout) == (0, f"{url}: {VARIANT} none -> 2\n"), done.stderr
    assert versions_served(url, VARIANT) == [2]


def test_a_rollout_says_what_is_wrong(tritons: list[EmbeddedTriton], two_versions: Path) -> None:
    for arguments, told in (
        (("nonsense", "--version", 1, "--triton", tritons[0].url), "Triton at"),
        ((VARIANT, "--version", 1, "--triton", "127.0.0.1:1"), "Triton at 127.0.0.1:1: "),
        ((VARIANT, "--version", 1, "--triton", "127.0.0.1"), "is no Triton endpoint; accepted is"),
        ((VARIANT, "--version", 7, "--repository", two_versions), "has no version 7"),
        ((VARIANT, "--version", 1), "say --triton, --repository, or both"),
    ):
        done = run(ROLLOUT, *arguments)
        assert done.exit_code == 2
        assert told in done.stderr
