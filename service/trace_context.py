"""Which trace a call belongs to: what its client says in W3C's `traceparent`, and an id for calls that have none."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(frozen=True)
class TraceParent:
    """A client's span, of which ours are children."""

    trace_id: str
    """32 hexadecimal digits."""
    headers: dict[str, str]
    """`traceparent`, and `tracestate` if there is one."""


parent: ContextVar[TraceParent | None] = ContextVar("parent", default=None)
"""That of the call being handled."""


def parent_in(metadata: Iterable[tuple[str, str | bytes]]) -> TraceParent | None:
    """What a call's metadata say of its trace; None if nothing, or nothing that makes sense."""
    headers = {key: value for key, value in metadata if key in ("traceparent", "tracestate") and isinstance(value, str)}
    if found := _TRACEPARENT.fullmatch(headers.get("traceparent", "")):
        return TraceParent(found[1], headers)
    return None


def new_request_id() -> str:
    """An id for what belongs to no trace; it looks like a trace's."""
    return secrets.token_hex(16)
