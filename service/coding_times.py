"""How long frames are copied, decoded and encoded beside their inference: learnt from those that were answered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias, cast

from service.frames import FrameFormat
from service.scheduling.clock import BatchClock
from service.scheduling.jobs import Work
from service.timing import Stage

_DOUBT_EVERY_S = 0.5

Codings: TypeAlias = Mapping[Stage, int]
"""What is done with a frame between its acceptance and its answer, beside the inference: stages, with the encoding."""


class CodingTimes:
    """Predicts and learns, per stage, encoding and frame format."""

    def __init__(self) -> None:
        self._clock = BatchClock(lambda layout: cast("FrameFormat", layout).input_bytes)
        self._doubt_at: dict[tuple[tuple[Stage, int], ...], float] = {}

    def expected_s(self, codings: Codings, layout: FrameFormat) -> float:
        """Seconds that they will hardly exceed together; none for what was never done."""
        return sum(
            self._clock.predict("", _work(stage, encoding, layout), 1) or 0.0 for stage, encoding in codings.items()
        )

    def learn(self, codings: Codings, layout: FrameFormat, took_s: Mapping[Stage, float], now: float) -> None:
        """They took so long."""
        for stage, encoding in codings.items():
            self._clock.record("", _work(stage, encoding, layout), 1, took_s[stage], now)

    def may_doubt(self, codings: Codings, now: float) -> bool:
        """Whether a frame may be accepted as though they took no time; now and then one may.

        Where they are taken for so slow that nothing is in time, no frame is answered, and so nothing would show that
        they are fast again.
        """
        return now >= self._doubt_at.get(tuple(codings.items()), -math.inf)

    def doubted(self, codings: Codings, now: float) -> None:
        """One was."""
        self._doubt_at[tuple(codings.items())] = now + _DOUBT_EVERY_S


def _work(stage: Stage, encoding: int, layout: FrameFormat) -> Work:
    return Work(f"{stage} {encoding}", layout)
