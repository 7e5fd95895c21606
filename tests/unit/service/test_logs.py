"""The form of log lines, as a process writes them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

SETUP = """
import asyncio, logging, sys, threading, warnings
from service import logs
from service.settings import Settings
logs.configure(Settings(log_format={form!r}))
log = logging.getLogger("here")
"""


def run(program: str, form: str = "json") -> tuple[int, list[str]]:
    """The exit code and what was written to standard error."""
    command = [sys.executable, "-c", SETUP.format(form=form) + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stderr.splitlines()


def test_a_line_of_json_has_the_usual_keys_and_the_extra_ones() -> None:
    _, (line,) = run('log.warning("two\\nlines %d", 3, extra={"reason": "FULL", "stages_s": {"decode": 0.5}})')
    told = json.loads(line)
    moment = datetime.fromisoformat(told.pop("time"))
    assert moment.utcoffset() == datetime.now(UTC).utcoffset()
    assert told.pop("process") > 0
    assert told == {
        "level": "WARNING",
        "logger": "here",
        "message": "two\nlines 3",
        "reason": "FULL",
        "stages_s": {"decode": 0.5},
    }


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ('raise ValueError("oh")', 1, "ValueError('oh')"),
        ("threading.Thread(target=lambda: 1 / 0, name='codec').start()", 0, "thread codec"),
        ('warnings.warn("careful")', 0, "careful"),
        ("""
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
asyncio.run(main())
""", 0, "Exception in callback"),
    ],
)  # fmt: skip
def test_what_nobody_caught_is_one_line(program: str, code: int, words: str) -> None:
    returned, (line,) = run(program)
    told = json.loads(line)
    assert returned == code
    assert words in told["message"]
    if "warn" not in program:
        assert "Traceback" in told["exception"]


def test_text_has_the_extra_keys_behind_the_message_and_no_forged_lines() -> None:
    _, (line,) = run(
        'log.info("model \\n2026 ERROR", extra={"width": 16, "client": "a b", "took_s": 0.1234567})', "text"
    )
    assert line.endswith(r'INFO here: model \n2026 ERROR width=16 client="a b" took_s=0.123457')


def test_tracing_is_not_even_imported_where_it_is_off() -> None:
    program = (
        "import sys, service.__main__; "
        "from service.app import Gateway; from service.settings import Settings; import asyncio\n"
        "async def main(): Gateway(Settings())\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tracing_without_its_packages_is_one_line() -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None; sys.argv[1:] = ['--otlp-endpoint', 'http://localhost:1']; "
        "from service.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("service: otlp_endpoint is set, but opentelemetry is not installed")
    assert "Traceback" not in done.stderr


def test_a_line_for_every_batch_does_not_fill_the_disk() -> None:
    """The clock of the lines is ours, so that it does not matter how fast they are written."""
    program = """
def lines(number, moment):
    for each in range(number):
        record = log.makeRecord("here", logging.ERROR, "", 0, "Triton failed on %d", (each,), None)
        record.created = moment
        log.handle(record)
lines(5000, 100.0)
lines(1, 100.9)
lines(2, 101.5)
log.error("another")
"""
    _, written = run(program)
    told = [json.loads(line) for line in written]
    assert [line["message"] for line in told[:20]] == [f"Triton failed on {number}" for number in range(20)]
    assert [(line["message"], line.get("left_out")) for line in told[20:]] == [
        ("Triton failed on 0", 4981),
        ("Triton failed on 1", None),
        ("another", None),
    ]
