"""One log line for each frame, or call, that failed; at overload some of them, and how many were left out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc

from service.errors import InternalError, UpscaleError

log = logging.getLogger(__name__)

_WINDOW_S = 1.0
_LONGEST = 500
"""Of a message in the log: it may quote what a client sent."""
_CLIENTS_OWN = {"INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED", "UNIMPLEMENTED"}
"""Nothing that the service's operators could mend."""
CANCELLED = "CANCELLED"


@dataclass
class _Window:
    """What happened of one kind since `began`."""

    began: float
    count: int = 0
    alarm: asyncio.TimerHandle | None = None


class FailureLog:
    """Writes them.

    Args:
        most_per_s: lines a second of each reason; of what is more, one line says how much it was.
    """

    def __init__(self, most_per_s: int) -> None:
        self._most = most_per_s
        self._windows: dict[str, _Window] = {}

    def failed(
        self,
        what: str,
        error: UpscaleError | asyncio.CancelledError,
        fields: Callable[[], Mapping[str, object]],
        *,
        bug: BaseException | None = None,
    ) -> None:
        """A frame or a call failed.

        Args:
            what: "frame" or "call".
            error: what its client is told.
            fields: gives what else is known, if there will be a line; None and "" are left out. Nothing that is
                secret, and no pixels.
            bug: what nobody foresaw; its traceback is logged.
        """
        if isinstance(error, UpscaleError):
            code, reason, message = error.code.name, error.reason, str(error)
        else:
            code, reason, message = CANCELLED, CANCELLED, "its client left, or its deadline has passed"
        level = logging.INFO if code in _CLIENTS_OWN else logging.WARNING
        if isinstance(error, InternalError):
            level = logging.ERROR
        if not log.isEnabledFor(level) or not self._admits(reason):
            return
        cause = error.__cause__
        extra: dict[str, object] = {"code": code, "reason": reason}
        extra |= {key: _short(value) for key, value in fields().items() if value not in (None, "")}
        if cause is not None and bug is None:
            extra["cause"] = _short(cause.details() if isinstance(cause, grpc.aio.AioRpcError) else str(cause))
        log.log(level, "%s failed: %s", what, _short(message), extra=extra, exc_info=bug)

    def close(self) -> None:
        """Tell what is not told yet."""
        for reason, window in self._windows.items():
            if window.alarm is not None:
                window.alarm.cancel()
                self._tell(reason, window)
        self._windows.clear()

    def _admits(self, reason: str) -> bool:
        now = time.monotonic()
        window = self._windows.get(reason)
        if window is None or (window.alarm is None and now - window.began >= _WINDOW_S):
            window = self._windows[reason] = _Window(now)
        window.count += 1
        if window.count <= self._most:
            return True
        if window.alarm is None:
            left_s = max(0.0, window.began + _WINDOW_S - now)
            window.alarm = asyncio.get_running_loop().call_later(left_s, self._end, reason, window)
        return False

    def _end(self, reason: str, window: _Window) -> None:
        del self._windows[reason]
        self._tell(reason, window)

    def _tell(self, reason: str, window: _Window) -> None:
        left_out = window.count - self._most
        log.warning(
            "%d more failed with %s: left out of the log",
            left_out,
            reason,
            extra={"reason": reason, "left_out": left_out, "within_s": round(time.monotonic() - window.began, 3)},
        )


def _short(value: object) -> object:
    return f"{value[:_LONGEST]}…" if isinstance(value, str) and len(value) > _LONGEST else value
