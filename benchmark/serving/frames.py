"""A frame that is sent, and how its answer is told from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import BenchmarkError
from benchmark.serving.task import MARK_BYTES, SCALE

_STEP = 8
_TOLERANCE = 1


@dataclass(frozen=True)
class Sample:
    """A frame, and how to know its answer."""

    pixels: NDArray[np.uint8]
    """RGB (H, W, 3), or NV12 (H * 3/2, W)."""
    expected: NDArray[np.int16] | None = None
    """Every eighth pixel of a network's answer; None: the identity model's, which begins as the frame does."""

    def check(self, answer: NDArray[np.uint8], way: str) -> None:
        """See that an answer is this frame's.

        Raises:
            BenchmarkError: it is not.
        """
        rows, columns, *channels = self.pixels.shape
        right = answer.shape == (rows * SCALE, columns * SCALE, *channels)
        if self.expected is None:
            right &= bool((answer.reshape(-1)[:MARK_BYTES] == self.pixels.reshape(-1)[:MARK_BYTES]).all())
        elif right:
            difference = answer[::_STEP, ::_STEP].astype(np.int16) - self.expected
            right = bool((abs(difference) <= _TOLERANCE).all())
        if not right:
            raise BenchmarkError(f"{way} answered with something else than the frame it was sent")

    def answered(self, answer: NDArray[np.uint8]) -> Sample:
        """The same frame, with what a network makes of it."""
        return Sample(self.pixels, answer[::_STEP, ::_STEP].astype(np.int16))
