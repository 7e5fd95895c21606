"""`python -m benchmark chain` with the real servers, small frames and slices as short as can be."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.serving.chain import markdown, measure
from benchmark.serving.task import Task

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("gateway_shm", "triton_shm", "gateway_bytes", "triton_bytes")


@pytest.mark.timeout(300)
def test_gateway_and_triton_take_turns_and_every_answer_is_compared() -> None:
    network = Task("bicubic_plus_plus", 3, "compressed", 160, 96)
    report = measure([network], "torch", instances=[2], in_flight=[1, 3], seconds=0.1, passes=2)
    rows = {(row["way"], row["in_flight"]): row for row in report["rows"]}
    assert rows.keys() == set(itertools.product(WAYS, (1, 3)))
    for (way, several), row in rows.items():
        assert (row["instances"], row["model"], row["passes"]) == (2, "bicubic_plus_plus", 2)
        assert row["frames"] >= several * 2
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["frames_per_s"] <= 1000 * several / row["p50_ms"] * 2
        assert row["largest_difference_to_fp32"] <= 1
        stages = row["stages_mean_ms"]
        if way.startswith("gateway"):
            assert stages.keys() == {"receive", "decode", "queue", "infer", "encode", "total"}
            assert 0 < stages["infer"] < stages["total"] <= 1000 * several / row["frames_per_s"] * 1.5
        else:
            assert stages == {}  # no frame of these passed the gateway
    alone = report["network_alone"]["bicubic_plus_plus_x3_compressed"]
    assert alone["largest_difference_to_fp32"] <= 1
    assert 0 < alone["engine_p50_ms"] <= alone["engine_p99_ms"]
    assert alone["engine_frames"] >= 1
    page = markdown({**report, "command": "python -m benchmark chain"})
    assert page.count("| bicubic_plus_plus | 2 | ") == 4
    assert "bicubic_plus_plus x3, 160x96 to 480x288." in page


def test_an_engine_that_is_not_known_is_one_line() -> None:
    command = [sys.executable, "-m", "benchmark", "chain", "--engine", "tensorrt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("benchmark: --engine tensorrt: known are onnxruntime, openvino, openvino-bf16, torch\n")
