"""Which endpoints there are, by the real resolver and real files."""

from __future__ import annotations

import logging
import os
import socket
import time
from pathlib import Path

import pytest

from service.discovery import Discovery


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


async def test_what_is_named_is_taken_as_it_is() -> None:
    discovery = Discovery("triton-a:8001, 10.0.0.7:8001,[::1]:08002,triton-a:8001")
    assert await discovery.look() == {"triton-a:8001", "10.0.0.7:8001", "[::1]:8002"}


async def test_a_name_is_every_address_it_resolves_to() -> None:
    addresses = {str(found[4][0]) for found in socket.getaddrinfo("localhost", 8001)}
    assert "127.0.0.1" in addresses
    expected = {f"[{address}]:8001" if ":" in address else f"{address}:8001" for address in addresses}
    assert await Discovery("dns:localhost:8001").look() == expected
    assert await Discovery("dns:[::1]:8001,dns:127.0.0.1:1").look() == {"[::1]:8001", "127.0.0.1:1"}


async def test_a_name_that_nobody_knows_is_told_once_and_hides_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    discovery = Discovery("dns:upscale.invalid:8001,10.0.0.7:8001,dns:" + "a" * 70 + ":1")
    for _ in range(3):
        assert await discovery.look() == {"10.0.0.7:8001"}
    assert sorted(message.partition(" cannot be looked up")[0] for message in warnings(caplog)) == [
        "dns:" + "a" * 70 + ":1",
        "dns:upscale.invalid:8001",
    ]


async def test_a_file_is_read_again_and_when_it_cannot_be_its_endpoints_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "endpoints"
    discovery = Discovery(f"file:{file}")
    assert await discovery.look() == frozenset()
    file.write_text("# ours\n10.0.0.1:8001  # the large one\n\n[fd00::2]:8001\n")
    assert await discovery.look() == {"10.0.0.1:8001", "[fd00::2]:8001"}
    for wrong in ("10.0.0.1:8001\nnonsense\n", "10.0.0.1:0", "10.0.0.1:65536"):
        file.write_text(wrong)
        assert await discovery.look() == {"10.0.0.1:8001", "[fd00::2]:8001"}
    file.write_bytes(b"\xff\xfe")
    assert await discovery.look() == {"10.0.0.1:8001", "[fd00::2]:8001"}
    file.write_text("10.0.0.3:8001")
    assert await discovery.look() == {"10.0.0.3:8001"}
    file.write_text("# none just now")
    assert await discovery.look() == frozenset()
    told = [record.message for record in caplog.records if record.name == "service.discovery"]
    assert [message.removeprefix(f"file:{file} ").partition(" (")[0] for message in told] == [
        "cannot be looked up",
        "can be looked up again",
        "cannot be looked up",
        "can be looked up again",
    ]
    assert "line 2 is 'nonsense'; it must be host:port" in told[2]
    assert told[2].endswith("stay what they were: 10.0.0.1:8001, [fd00::2]:8001")


async def test_a_source_that_does_not_answer_is_not_waited_for_and_searched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.discovery._ANSWER_S", 0.05)
    pipe = tmp_path / "endpoints"
    os.mkfifo(pipe)  # reading it waits for a writer, as a file system that is gone would
    discovery = Discovery(f"file:{pipe},10.0.0.7:8001")
    began = time.monotonic()
    for _ in range(3):
        assert await discovery.look() == {"10.0.0.7:8001"}
    assert time.monotonic() - began < 1
    pipe.write_text("10.0.0.8:8001")  # would wait for ever if the reader had not been kept
    monkeypatch.setattr("service.discovery._ANSWER_S", 5)
    assert await discovery.look() == {"10.0.0.7:8001", "10.0.0.8:8001"}
