"""Batches for a GPU: drawn from a pool of pairs in its memory, which the CPU's cores renew all the time.

A core cuts, degrades and compresses some hundred pairs a second, a GPU trains on tens of thousands. So each pair is
drawn several times, turned and flipped anew, before a fresh one takes its place.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from contextlib import suppress

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.patches import Batches

CAPACITY = 2048
"""Of a pool, in pairs; 1.0 GB of 360x360 patches at x2."""
_LEAST = 256
"""Pairs before the first batch is drawn, or as many as there will ever be."""


class _Bytes(Dataset[tuple[Tensor, Tensor]]):
    """The batches as bytes: a quarter of what floats would take on their way to the GPU."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        lr, hr = map(torch.from_numpy, self._batches.frames(step))
        return lr, hr


def pool_stream(
    batches: Batches, first_step: int, workers: int, device: torch.device, capacity: int = CAPACITY
) -> Generator[tuple[Tensor, Tensor]]:
    """A batch for every step from `first_step` to the last: (LR, HR) on `device`, float RGB in [0, 1], channels last.

    Which pairs a batch has depends on how fast the workers are: unlike `patches.batch_stream`, it never comes again.
    """
    fresh: queue.Queue[tuple[Tensor, Tensor] | Exception] = queue.Queue(maxsize=4)
    done = threading.Event()
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        _Bytes(batches),
        batch_size=None,
        sampler=range(first_step, len(batches)),
        num_workers=workers,
    )

    def offer(pairs: tuple[Tensor, Tensor] | Exception) -> None:
        while not done.is_set():
            with suppress(queue.Full):
                fresh.put(pairs, timeout=0.1)
                return

    def feed() -> None:
        try:
            for pairs in loader:
                offer(pairs)
                if done.is_set():
                    return
        except Exception as error:
            offer(error)

    def put(pairs: tuple[Tensor, Tensor] | Exception) -> None:
        if isinstance(pairs, Exception):
            raise pairs
        pool.put(*pairs)

    feeder = threading.Thread(target=feed, name="pairs", daemon=True)
    feeder.start()
    pool = Pool(device, capacity)
    try:
        wanted = min(_LEAST, capacity, (len(batches) - first_step) * batches.batch_size)
        for _ in range(first_step, len(batches)):
            while len(pool) < wanted:
                put(fresh.get())
            with suppress(queue.Empty):
                put(fresh.get_nowait())
            yield pool.draw(batches.batch_size)
    finally:
        done.set()
        feeder.join()


class Pool:
    """Pairs on a device; the oldest makes room."""

    def __init__(self, device: torch.device, capacity: int) -> None:
        self._device = device
        self._capacity = capacity
        self._sides: tuple[Tensor, ...] = ()
        self._next = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, lr: Tensor, hr: Tensor) -> None:
        """Add pairs: uint8 RGB, (N, h, w, 3) and (N, scale*h, scale*w, 3)."""
        if not self._sides:
            self._sides = tuple(
                side.new_empty((self._capacity, *side.shape[1:]), device=self._device) for side in (lr, hr)
            )
        places = torch.arange(self._next, self._next + len(lr), device=self._device) % self._capacity
        for kept, side in zip(self._sides, (lr, hr), strict=True):
            kept[places] = side.to(self._device)
        self._next = (self._next + len(lr)) % self._capacity
        self._count = min(self._capacity, self._count + len(lr))

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Some pairs, all turned and flipped the same way."""
        chosen = torch.randint(self._count, (count,), device=self._device)
        turns, flipped = (int(torch.randint(most, ())) for most in (4, 2))

        def drawn(kept: Tensor) -> Tensor:
            frames = torch.rot90(kept[chosen], turns, (1, 2))
            frames = frames.flip(1) if flipped else frames
            return frames.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).float().div_(255)

        lr, hr = map(drawn, self._sides)
        return lr, hr
