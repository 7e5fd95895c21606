"""The settings in docs/operations.md are those of the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from service.reference import BEGIN, END, PAGE, written
from service.settings import Settings


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == written(PAGE.read_text()), "run: make docs"


def test_every_setting_is_there_with_what_it_means() -> None:
    rows = [line.split(" | ") for line in written(f"{BEGIN}{END}").splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"| `{name}`" for name in Settings.model_fields]
    assert all(len(row) == 4 and len(row[3]) > 10 for row in rows), "a setting has no docstring"
    by_name = {row[0]: row for row in rows}
    assert by_name["| `log_format`"][1:3] == ["`UPSCALE_LOG_FORMAT`", "`text`"]
    assert by_name["| `log_format`"][3].endswith("One of `text`, `json`. |")
    assert by_name["| `client_shared_memory`"][2] == "`true`"
    assert by_name["| `otlp_endpoint`"][2] == "-"


@pytest.mark.parametrize("content", [None, "a page without markers\n"])
def test_a_page_that_cannot_be_written_is_one_line(tmp_path: Path, content: str | None) -> None:
    page = tmp_path / "page.md"
    if content is not None:
        page.write_text(content)
    command = [sys.executable, "-m", "service.reference", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"service.reference: {page}: ")
    assert done.stderr.count("\n") == 1
    assert not page.exists() or page.read_text() == content
