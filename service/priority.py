"""Who goes first where there is not room for all."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """The lower goes first."""

    LIVE = 0
    OFFLINE = 1
