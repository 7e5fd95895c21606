"""What clients say of their traces."""

from __future__ import annotations

import pytest

from service.trace_context import new_request_id, parent_in

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_traceparent_is_taken_over() -> None:
    found = parent_in([("user-agent", "x"), ("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=b")])
    assert found is not None
    assert found.trace_id == TRACE
    assert found.headers == {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"}


def test_a_later_version_may_say_more() -> None:
    found = parent_in([("traceparent", f"01-{TRACE}-{SPAN}-01-more")])
    assert found is not None
    assert found.trace_id == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\nforged",
        f"00-{TRACE}-{SPAN}-01" + "x" * 10_000,
        b"00-bytes",
    ],
)
def test_nonsense_is_no_trace(value: str | bytes) -> None:
    assert parent_in([("traceparent", value)]) is None


def test_an_id_looks_like_a_traces() -> None:
    ids = {new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(parent_in([("traceparent", f"00-{each}-{SPAN}-00")]) for each in ids)
