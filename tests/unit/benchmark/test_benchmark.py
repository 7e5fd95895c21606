"""The benchmarks that need no service: what they count, time, write and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark import zoo
from benchmark.runtime import Row, markdown
from benchmark.score import score
from models.registry import specs

ROOT = Path(__file__).resolve().parents[3]
KEYS = ["model", "scale", "params", "macs", "macs_official", "report_params_m", "report_gmacs", "verdict", "note"]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmark", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def test_the_score_is_the_one_that_was_published() -> None:
    rows = [(spec.reported[scale], scale) for spec in specs().values() if spec.learned for scale in spec.scales]
    assert len(rows) == 41
    for row, scale in rows:
        # Half a hundredth of a dB of rounding in the printed PSNR is 0.35 %, one of milliseconds up to 0.22 %.
        assert score(row.psnr_rgb, row.runtime_ms, scale) == pytest.approx(row.score, rel=0.0045)
    assert score(33.90, 1.0, 2) == 0


def test_complexity_prints_the_whole_table_as_json() -> None:
    done = benchmark("complexity", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 43
    assert all(list(row) == KEYS for row in rows)


def test_runtime_writes_numbers_table_and_chart(tmp_path: Path) -> None:
    output = tmp_path / "new" / "runtime"
    arguments = ["--model", "qqcoin", "--device", "cpu", "--seconds", "0.5", "--output", str(output)]
    done = benchmark("runtime", *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.with_suffix(".json").read_text())
    (row,) = report["rows"]
    assert (row["model"], row["scale"], row["params"]) == ("qqcoin", 2, 816)
    assert row["ratio"] == pytest.approx(row["ms"]["eager"] / row["bicubic_ms"], abs=0.01)
    assert row["score"] == pytest.approx(score(34.14, row["ms"]["eager"], 2), abs=0.01)
    # A 4K frame of float32 RGB is 95 MB, and the last convolution's output another.
    assert 150 < row["peak_memory_mb"] < 2000
    assert "| qqcoin |" in output.with_suffix(".md").read_text()
    assert ">qqcoin</text>" in output.with_suffix(".svg").read_text()


def test_the_runtime_table_tells_what_failed() -> None:
    row = Row("runet", 2, 66_764, 15_328_051_200, ms={"eager": 2.0}, ratio=4.0, failed={"graph": "no luck"})
    report = {
        "device": "d",
        "precision": "fp16",
        "date": "2026-01-01",
        "torch": "2",
        "protocol": "p",
        "command": "c",
        "rows": [vars(row)],
    }
    page = markdown(report)
    assert "| runet | 2.00 | 4.0 | 0.0668 | 15.33 | 0 |  |" in page
    assert "- runet x2, graph: no luck" in page


def test_the_models_page_is_current() -> None:
    assert (ROOT / "docs" / "models.md").read_text() == zoo.markdown(), "run 'python -m benchmark models'"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["complexity", "--model", "nope"], "benchmark: unknown model 'nope'; known are: "),
        (["runtime", "--device", "cpu", "--mode", "graph"], "benchmark: --mode graph: CUDA graphs need a GPU"),
        (["runtime", "--precision", "int4"], "benchmark: --precision int4: known are fp16, bf16, fp32"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: list[str], words: str) -> None:
    done = benchmark(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
