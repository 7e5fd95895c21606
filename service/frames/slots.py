"""Room for frames and their answers, and who holds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from service.frames.formats import FrameFormat
from service.frames.memory import Span


class Slot:
    """Room for one frame and its answer, held until the last holder releases it.

    Who takes it is its first holder; as a context manager it is released at the end of the block.

    Args:
        layout: of the frame.
        source, answer: where Triton reads and where it writes.
        on_free: called when the last holder lets go.
    """

    def __init__(self, layout: FrameFormat, source: Span, answer: Span, on_free: Callable[[], None]) -> None:
        self.layout = layout
        self.source = source
        self.answer = answer
        self.colours: NDArray[np.float32] | None = None
        """Of a YUV frame: the maps between its numbers and RGB, (2, 3, 4)."""
        self._on_free = on_free
        self._holders = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def hold(self) -> None:
        """One more holder."""
        assert self._holders > 0, "held a free slot. This is a bug."
        self._holders += 1

    def release(self) -> None:
        """One holder less; with the last, the slot is free."""
        assert self._holders > 0, "released a free slot. This is a bug."
        self._holders -= 1
        if self._holders == 0:
            self._on_free()

    def precedes(self, other: Slot) -> bool:
        """Whether `other` can follow in a batch: it lies next to this one, frame and answer both."""
        return self.layout == other.layout and self.source.precedes(other.source) and self.answer.precedes(other.answer)

    @property
    def retired(self) -> bool:
        """Whether somebody outside may still write to it."""
        return self.source.region.retired or self.answer.region.retired

    @property
    def ours(self) -> bool:
        """Whether all of it was made here, and none of it by a client."""
        return self.source.region.ours and self.answer.region.ours

    def retire(self) -> None:
        """Use its memory never again: somebody outside may still write to it."""
        self.source.region.retired = self.answer.region.retired = True


@dataclass(frozen=True)
class SlotBatch:
    """Neighbouring slots, to be inferred together."""

    slots: Sequence[Slot]

    @property
    def layout(self) -> FrameFormat:
        """Of each of its frames."""
        return self.slots[0].layout

    @property
    def source(self) -> Span:
        """All the frames."""
        first = self.slots[0].source
        return Span(first.region, first.offset, len(self.slots) * first.size)

    @property
    def answer(self) -> Span:
        """All the answers."""
        first = self.slots[0].answer
        return Span(first.region, first.offset, len(self.slots) * first.size)

    def retire(self) -> None:
        """Triton gave no answer, so it may still write: use this memory never again."""
        for slot in self.slots:
            slot.retire()
