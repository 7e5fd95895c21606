"""A short form of `python -m benchmark chaos`: every fault, under a small load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.reliability.chaos import inject
from benchmark.reliability.faults import FAULTS, Fault
from benchmark.reliability.load import Expected, record
from benchmark.reliability.service import make_repository, started
from deploy.embedded import EmbeddedTriton

FRAMES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def triton(folder: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(make_repository(folder / "models"), log=folder / "triton.log") as server:
        yield server


@pytest.fixture(scope="module")
def expected(triton: EmbeddedTriton, folder: Path) -> Expected:
    with started(triton, folder) as service:
        return asyncio.run(record(service.address))


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
async def test_every_frame_is_answered_rightly_or_fails_as_it_may_and_nothing_is_left_over(
    triton: EmbeddedTriton, folder: Path, expected: Expected, fault: Fault
) -> None:
    row = await inject(triton, folder, fault, expected, FRAMES)
    if "not_run" in row:
        pytest.skip(f"{fault.name} needs a mount namespace: {row['not_run']}")
    assert row["findings"] == []
    assert row["answered"] >= FRAMES
