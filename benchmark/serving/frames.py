"""A frame that is sent, and how its answer is told from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmark.errors import BenchmarkError
from benchmark.serving.task import MARK_BYTES, SCALE

_STEP = 8


@dataclass(frozen=True)
class Sample:
    """A frame, and how to know its answer."""

    pixels: NDArray[np.uint8]
    """RGB (H, W, 3), or NV12 (H * 3/2, W)."""
    expected: NDArray[np.int16] | None = None
    """Every eighth pixel of a network's answer; None: the identity model's, which begins as the frame does."""
    scale: int = SCALE
    tolerance: int = 1
    """Grey levels by which a network's answer may differ."""

    def check(self, answer: NDArray[np.uint8], way: str) -> int:
        """See that an answer is this frame's; returns the largest difference that was found, in grey levels.

        Raises:
            BenchmarkError: it is not.
        """
        rows, columns, *channels = self.pixels.shape
        right = answer.shape == (rows * self.scale, columns * self.scale, *channels)
        difference = 0
        if self.expected is None:
            right &= bool((answer.reshape(-1)[:MARK_BYTES] == self.pixels.reshape(-1)[:MARK_BYTES]).all())
        elif right:
            difference = int(abs(answer[::_STEP, ::_STEP].astype(np.int16) - self.expected).max())
            right = difference <= self.tolerance
        if not right:
            raise BenchmarkError(f"{way} answered with something else than the frame it was sent")
        return difference

    def answered(self, answer: NDArray[np.uint8], tolerance: int = 1) -> Sample:
        """The same frame, with what a network makes of it."""
        expected = answer[::_STEP, ::_STEP].astype(np.int16)
        return Sample(self.pixels, expected, len(answer) // len(self.pixels), tolerance)
