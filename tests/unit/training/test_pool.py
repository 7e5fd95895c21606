"""The pool that a GPU's batches are drawn from; here its memory is the CPU's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.pictures import SETTINGS
from training.patches import Batches, load_patches
from training.pool import Pool, pool_stream

CPU = torch.device("cpu")


def as_bytes(frame: Tensor) -> bytes:
    return (frame * 255).round().to(torch.uint8).contiguous().numpy().tobytes()


def in_all_ways(frame: Tensor) -> list[bytes]:
    """A frame (3, H, W), turned and flipped."""
    turned = [frame.rot90(turns, (1, 2)) for turns in range(4)]
    return [as_bytes(each) for each in (*turned, *(each.flip(2) for each in turned))]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_step_gets_pairs_of_the_batches_turned_alike(pictures: Path, workers: int) -> None:
    settings = replace(SETTINGS, steps=12)
    batches = Batches(load_patches(pictures, 48), 2, settings)
    pairs = {
        pair
        for step in range(2, 12)
        for lr, hr in zip(*batches[step], strict=True)
        for pair in zip(in_all_ways(lr), in_all_ways(hr), strict=True)
    }
    drawn = list(pool_stream(batches, 2, workers, CPU))
    assert len(drawn) == 10
    for lr, hr in drawn:
        assert lr.shape == (4, 3, 24, 24)
        assert hr.shape == (4, 3, 48, 48)
        assert hr.is_contiguous(memory_format=torch.channels_last)
        assert {(as_bytes(small), as_bytes(large)) for small, large in zip(lr, hr, strict=True)} <= pairs
    seen = [as_bytes(each) for lr, _ in drawn for each in lr]
    assert len(set(seen)) > len(seen) / 2, "they are drawn at random"


def test_fresh_pairs_take_the_place_of_the_oldest() -> None:
    pool = Pool(CPU, capacity=4)

    def values() -> set[int]:
        """Each pair is of one value, at x2."""
        lr, hr = pool.draw(100)
        assert torch.equal(lr[:, :, 0, 0], hr[:, :, 0, 0])
        return {round(255 * float(value)) for value in hr[:, 0, 0, 0]}

    for first in (1, 4, 7):
        fresh = [torch.arange(first, first + 3, dtype=torch.uint8)[:, None, None, None] for _ in range(2)]
        pool.put(*(each.expand(3, side, side, 3) for each, side in zip(fresh, (2, 4), strict=True)))
        assert values() == set(range(first + 2, first - 2, -1)) - {0, -1}
        assert len(pool) == min(4, first + 2)


def test_a_worker_that_fails_ends_the_run(pictures: Path) -> None:
    class Failing(Batches):
        def frames(self, step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            if step == 3:
                raise ValueError("no such patch")
            return super().frames(step)

    batches = Failing(load_patches(pictures, 48), 2, replace(SETTINGS, steps=12))
    with pytest.raises(ValueError, match="no such patch"):
        list(pool_stream(batches, 0, 0, CPU))


def test_a_stream_can_be_left_early(pictures: Path) -> None:
    batches = Batches(load_patches(pictures, 48), 2, replace(SETTINGS, steps=100_000))
    stream = pool_stream(batches, 0, 1, CPU)
    next(stream)
    stream.close()
