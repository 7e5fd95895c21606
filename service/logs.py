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
_JSON_NAMES = {"levelname": "level", "name": "logger", "exc_info": "exception"}


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
    if settings.log_format == "json":
        # What gRPC's core prints by itself is no JSON; what fails is told by Python as well. The core reads this when
        # it is loaded, and workers inherit it.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        handler.setFormatter(
            JsonFormatter(
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
