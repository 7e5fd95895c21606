"""The log of failures: a line each, and at overload a line for those that are left out."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from service.errors import BackendUnavailableError, InternalError, OverloadedError, RequestInvalidError
from service.failures import FailureLog


def extra(record: logging.LogRecord) -> dict[str, Any]:
    return record.__dict__


async def test_what_is_known_is_said_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    failures = FailureLog(5)
    failures.failed(
        "frame", OverloadedError("full"), lambda: {"variant": "runet", "model": None, "client": "", "width": 0}
    )
    (record,) = caplog.records
    assert record.getMessage() == "frame failed: full"
    assert record.levelname == "WARNING"
    known = extra(record)
    assert (known["code"], known["reason"], known["variant"]) == ("RESOURCE_EXHAUSTED", "OVERLOADED", "runet")
    assert known["width"] == 0
    assert "model" not in known
    assert "client" not in known


@pytest.mark.parametrize(
    ("error", "level", "code"),
    [
        (RequestInvalidError("no"), "INFO", "INVALID_ARGUMENT"),
        (asyncio.CancelledError(), "INFO", "CANCELLED"),
        (BackendUnavailableError("gone"), "WARNING", "UNAVAILABLE"),
        (InternalError("ours"), "ERROR", "INTERNAL"),
    ],
)
async def test_the_level_says_whose_fault_it_is(
    caplog: pytest.LogCaptureFixture, error: Any, level: str, code: str
) -> None:
    caplog.set_level("INFO")
    FailureLog(5).failed("frame", error, dict)
    (record,) = caplog.records
    assert (record.levelname, extra(record)["code"]) == (level, code)


async def test_a_cause_is_told_and_a_bug_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(5)
    try:
        raise InternalError("ours") from ValueError("Triton's words")
    except InternalError as error:
        failures.failed("frame", error, dict)
    failures.failed("frame", InternalError("ours"), dict, bug=ZeroDivisionError("oh"))
    caused, bug = caplog.records
    assert extra(caused)["cause"] == "Triton's words"
    assert bug.exc_info
    assert bug.exc_info[0] is ZeroDivisionError


async def test_thousands_of_refusals_are_a_few_lines_and_their_number(caplog: pytest.LogCaptureFixture) -> None:
    failures = FailureLog(3)
    for _ in range(5000):
        failures.failed("frame", OverloadedError("full"), dict)
    failures.failed("frame", BackendUnavailableError("gone"), dict)  # another reason has lines of its own
    assert [record.getMessage() for record in caplog.records] == ["frame failed: full"] * 3 + ["frame failed: gone"]
    failures.close()
    last = caplog.records[-1]
    assert (extra(last)["left_out"], extra(last)["reason"]) == (4997, "OVERLOADED")
    assert len(caplog.records) == 5


async def test_the_number_comes_by_itself_and_then_all_begins_anew(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.failures._WINDOW_S", 0.05)
    failures = FailureLog(1)
    for _ in range(4):
        failures.failed("frame", OverloadedError("full"), dict)
    for _ in range(1000):
        if len(caplog.records) > 1:
            break
        await asyncio.sleep(0.01)
    assert extra(caplog.records[1])["left_out"] == 3
    failures.failed("frame", OverloadedError("full"), dict)
    assert len(caplog.records) == 3
    failures.close()
    assert len(caplog.records) == 3


async def test_what_a_client_sent_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    FailureLog(1).failed("frame", RequestInvalidError("x" * 100_000), lambda: {"model": "y" * 100_000})
    (record,) = caplog.records
    assert len(record.getMessage()) < 600
    assert len(extra(record)["model"]) < 600
