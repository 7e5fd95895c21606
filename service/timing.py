"""A frame's time, measured once: the answer, the metrics and the log take it from here."""

from __future__ import annotations

import time
from typing import Literal, get_args

from google.protobuf.duration_pb2 import Duration

Stage = Literal["receive", "decode", "queue", "infer", "encode"]
STAGES: tuple[Stage, ...] = get_args(Stage)
_NEXT = dict(zip(STAGES, (*STAGES[1:], STAGES[-1]), strict=True))


class StageClock:
    """Seconds per stage. The stages follow each other without gaps, so their sum is the total.

    Args:
        arrival: when the call's first header came, on `time.perf_counter`'s clock.
    """

    def __init__(self, arrival: float) -> None:
        self.arrival = arrival
        self.seconds: dict[Stage, float] = dict.fromkeys(STAGES, 0.0)
        self.stage: Stage = "receive"
        """The one that it is in; the last one in the end."""
        self._last = arrival

    def lap(self, stage: Stage) -> None:
        """Everything since the last lap was `stage`."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now
        self.stage = _NEXT[stage]

    @property
    def total(self) -> float:
        """Seconds from the arrival to the last lap."""
        return self._last - self.arrival


def set_duration(field: Duration, seconds: float) -> None:
    """Put a time into a message's field, to the nanosecond."""
    field.seconds, field.nanos = divmod(round(seconds * 1e9), 1_000_000_000)
