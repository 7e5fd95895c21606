"""The frames that are sent."""

from __future__ import annotations

import numpy as np
from PIL import Image

from benchmark.serving.frames import Sample
from benchmark.serving.task import HEIGHT, MARK_BYTES, RUNET, WIDTH, Task
from deploy.local import ROOT
from training.degradation import degrade


def photographs(task: Task = RUNET) -> list[Sample]:
    """The sample photograph in a task's size, and its mirror images: what follows a frame is never the same frame."""
    with Image.open(ROOT / "samples" / "nuthatch_4k.jpg") as image:
        frame = degrade(np.asarray(image.convert("RGB")), task.scale)[: task.height, : task.width]
    assert frame.shape == (task.height, task.width, 3)
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
