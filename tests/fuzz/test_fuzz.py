"""The fuzzer in short: it finds what is wrong where something is, and in what the service takes from others nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.fuzzed import TARGETS, Target
from tests.fuzz.run import fuzz

INPUTS = {"calls": 400}
FEW = 3000


def faulty(name: str) -> Target:
    return Target(name.lower(), "", f"tests.fuzz.faulty:{name}", 1, 16, ("tests",))


@pytest.mark.parametrize("chosen", TARGETS, ids=lambda chosen: chosen.name)
def test_what_takes_bytes_from_others_takes_any(chosen: Target, tmp_path: Path) -> None:
    inputs = INPUTS.get(chosen.name, FEW)
    done: list[int] = []
    row = fuzz(chosen, inputs, 1, tmp_path / chosen.name, done.append)
    assert not row["findings"], (tmp_path / chosen.name / "log").read_text(errors="replace")[-3000:]
    assert row["inputs"] == inputs
    assert done
    assert row["coverage"] > row["coverage_of_seeds"] > 0, "the fuzzer does not see where its inputs lead"


def test_a_crash_is_found_by_the_branches_that_lead_to_it_and_can_be_had_again(tmp_path: Path) -> None:
    row = fuzz(faulty("CRASHES"), 2_000_000, 1, tmp_path / "crashes")
    (finding,) = row["findings"]
    assert finding.startswith("IndexError: found; again by: python -m tests.fuzz --only crashes --reproduce ")
    kept = Path(shlex.split(finding)[-1])
    assert kept.read_bytes()[:4] == b"CRAS"


def test_an_input_is_given_again_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"\0a:1")
    command = [sys.executable, "-m", "tests.fuzz", "--only", "endpoints", "--reproduce", str(tmp_path / "input")]
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert again.stdout.startswith("nothing is wrong with it"), again.stderr


def test_a_hang_is_found(tmp_path: Path) -> None:
    row = fuzz(faulty("HANGS"), 2000, 1, tmp_path / "hangs")
    (finding,) = row["findings"]
    assert "timeout-" in finding


def test_a_leak_is_found(tmp_path: Path) -> None:
    row = fuzz(faulty("LEAKS"), 20_000, 1, tmp_path / "leaks")
    memory, descriptors = row["findings"]
    assert memory.startswith("memory grew by ")
    assert descriptors.endswith("descriptors were left open")
