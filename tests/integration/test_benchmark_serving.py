"""`python -m benchmark serving` with real servers, few frames and no peers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.serving.report import TARGETS

ROOT = Path(__file__).resolve().parents[2]
GATEWAY_WAYS = {
    "gateway_unary_rgb24",
    "gateway_unary_nv12",
    "gateway_stream_rgb24",
    "gateway_shm_rgb24",
    "gateway_shm_nv12",
}


@pytest.mark.timeout(400)
def test_every_way_is_measured_and_every_answer_verified(repository: Path, tmp_path: Path) -> None:
    output, page = tmp_path / "new" / "serving", tmp_path / "performance.md"
    command = [sys.executable, "-m", "benchmark", "serving", "--json", "--quick", "--no-peers"]
    done = subprocess.run(
        [*command, "--rounds=2", "--seconds=0.3", f"--output={output}", f"--page={page}", f"--repository={repository}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads(output.with_suffix(".json").read_text())
    assert {"device", "cores", "versions", "date", "command", "ways", "open_loop", "ratios"} <= report.keys()
    assert report["ratios"].keys() == TARGETS.keys()
    assert report["ratios"]["unary_rgb_vs_triton_bytes"] > 0

    ways = {(row["model"], row["way"]): row for row in report["ways"]}
    both = {"in_process", "triton_shm", "gateway_unary_rgb24", "gateway_stream_rgb24"}
    expected = {("identity", name) for name in both | GATEWAY_WAYS | {"triton_bytes"}}
    expected |= {("runet", name) for name in both}
    assert ways.keys() == expected
    for row in ways.values():
        assert row["verified"] > row["frames"] >= 2
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["frames_per_s_1"] > 0
        assert row["frames_per_s_4"] > 0
        assert (row["cpu_s_per_frame"] is not None) == row["way"].startswith("gateway")
        if row["way"] != "in_process":
            assert row["cpu_all_s_per_frame"] > 0
            assert row["peak_rss_mb"] > 50
    assert len(report["open_loop"]) == 4
    for load in report["open_loop"]:
        assert load["answered"] + load["refused"] == load["offered"]
    assert "| gateway, RGB24 |" in page.read_text()
    assert ">gateway, RGB24</text>" in output.with_suffix(".svg").read_text()
