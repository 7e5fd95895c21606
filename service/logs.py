"""How log lines look: text for people, or JSON, one object a line, for what collects them."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from types import TracebackType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS, merge_record_extra
from pythonjsonlogger.json import JsonFormatter

from service.settings import Settings

log = logging.getLogger(__name__)

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_TEXT_OF_MANY = "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"
FAILURES = "service.failures"
_MOST_PER_S = 20
_KINDS = 1000
_JSON_NAMES = {"levelname": "level", "name": "logger", "exc_info": "exception"}


class AtMost(logging.Filter):
    """Lets a few lines of one kind through every second; the next one after them says how many were left out.

    What fails for every batch, or for every call, shall not fill the disk. Frames' failures are counted by
    `service.failures`, which knows better.
    """

    def __init__(self, most_per_s: int) -> None:
        super().__init__()
        self._most = most_per_s
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        """By logger and message: when its second began, and how many lines there were since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        if record.name == FAILURES:
            return True
        kind = (record.name, str(record.msg))
        began, count = self._seen.get(kind, (0.0, 0))
        if record.created - began >= 1:
            if count > self._most:
                record.left_out = count - self._most
            if len(self._seen) >= _KINDS:
                self._seen.clear()
            began, count = record.created, 0
        self._seen[kind] = (began, count + 1)
        return count < self._most


class _JsonFormatter(JsonFormatter):
    """A line for what collects them; the time comes first."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {"time": log_data.pop("time"), **log_data}


class TextFormatter(logging.Formatter):
    """A line for people: the fields that JSON would have come behind the message, as key=value."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without a traceback; what a client put into a message stays on that line."""
        fields: dict[Any, Any] = merge_record_extra(record, {}, reserved=[*RESERVED_ATTRS, "message"])
        line = super().formatMessage(record) + "".join(f" {key}={_text(value)}" for key, value in fields.items())
        return line.replace("\r", "\\r").replace("\n", "\\n")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str) and value.isascii() and value and not set(value) & set(' "='):
        return value
    return json.dumps(value, default=str)


def configure(settings: Settings, *, one_of_many: bool = False) -> None:
    """Have every line of this process written to standard error in the form that `settings` name.

    Uncaught exceptions and warnings become lines, too.

    Args:
        settings: level and form.
        one_of_many: the process shares its output with others, and lines of text say which one wrote them.
    """
    handler = logging.StreamHandler()
    handler.addFilter(AtMost(_MOST_PER_S))
    if settings.log_format == "json":
        # What gRPC's core prints by itself is no JSON; what fails is told by Python as well. The core reads this when
        # it is loaded, and workers inherit it.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        handler.setFormatter(
            _JsonFormatter(
                ["levelname", "name", "message", "process"],
                rename_fields=_JSON_NAMES,
                timestamp="time",
                json_ensure_ascii=False,
            )
        )
    else:
        handler.setFormatter(TextFormatter(_TEXT_OF_MANY if one_of_many else _TEXT))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def tell_the_end(settings: Settings, message: str) -> None:
    """Say why the program ends: the one line that an operator is to read."""
    if settings.log_format == "json":
        log.critical("%s", message)
    else:
        print(f"service: {message}", file=sys.stderr)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("the process ends by an uncaught exception: %r", error, exc_info=(kind, error, trace))


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    error = told.exc_value
    if error is not None:
        name = told.thread.name if told.thread else "?"
        log.error("thread %s ends by an uncaught exception: %r", name, error, exc_info=error)
