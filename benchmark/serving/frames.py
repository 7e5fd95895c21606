"""The frames that are sent, and how their answers are told from others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmark.errors import BenchmarkError
from benchmark.serving.repository import MARK_BYTES, SCALE
from deploy.local import ROOT
from training.degradation import degrade

WIDTH, HEIGHT = 1920, 1080
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


def photographs() -> list[Sample]:
    """The sample photograph in 1080p, and its mirror images: what follows a frame is never the same frame."""
    with Image.open(ROOT / "samples" / "nuthatch_4k.jpg") as image:
        frame = degrade(np.asarray(image.convert("RGB")), SCALE)
    assert frame.shape == (HEIGHT, WIDTH, 3)
    turned = (frame, frame[::-1], frame[:, ::-1], frame[::-1, ::-1])
    samples = [Sample(np.ascontiguousarray(each)) for each in turned]
    marks = {sample.pixels.tobytes()[:MARK_BYTES] for sample in samples}
    assert len(marks) == len(samples), "two frames begin alike. This is a bug."
    return samples


def as_nv12(sample: Sample) -> Sample:
    """The frame in NV12: all of Y, then Cb and Cr in turn, each for two by two pixels."""
    luma, blue, red = np.moveaxis(np.asarray(Image.fromarray(sample.pixels).convert("YCbCr")), -1, 0)
    colours = np.stack([blue[::2, ::2], red[::2, ::2]], axis=-1).reshape(HEIGHT // 2, WIDTH)
    return Sample(np.concatenate([luma, colours]))
