"""How large a fleet must be, from what was measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.sizing import MARKERS, PAGE, REPORTS, from_reports, from_service, markdown, needed
from upscale_client import BatchTime, Served


@pytest.mark.parametrize(
    ("streams", "fps", "per_s", "instances"),
    [(1, 60, 1000, 1), (7, 10, 100, 1), (8, 10, 100, 2), (100, 60, 600, 15), (1, 60, 0.7, 123)],
)
def test_seven_tenths_of_what_is_measured_are_planned_for(
    streams: int, fps: float, per_s: float, instances: int
) -> None:
    assert needed(streams, fps, per_s) == instances


def test_the_page_has_what_the_reports_say() -> None:
    begin, end = MARKERS
    _, _, rest = PAGE.read_text().partition(begin)
    found, _, _ = rest.partition(end)
    assert found.strip() == markdown(REPORTS, streams=1, fps=60), "run: make docs"


def test_a_new_devices_report_is_taken_up(tmp_path: Path) -> None:
    shutil.copy(REPORTS / "serving.json", tmp_path)
    report = {
        "device": "a device",
        "precision": "fp16",
        "command": "python -m benchmark runtime --model all",
        "rows": [
            {"model": "runet", "scale": 2, "ms": {"eager": 4.0, "graph": 2.0}},
            {"model": "runet", "scale": 3, "ms": {}, "failed": {"eager": "no memory"}},
            {"model": "elis", "scale": 2, "ms": {"eager": 1.0}},
        ],
    }
    (tmp_path / "runtime-device.json").write_text(json.dumps(report))
    (measured,) = from_reports(tmp_path)
    assert measured.frames_per_s == 500
    row = "| a device | runet x2, 1920x1080, fp16, batch 1 | 500.0 | 18 | `benchmark runtime` |"
    assert row in markdown(tmp_path, 100, 60)


def test_an_instance_behind_the_gateway_does_its_share_of_what_all_do(tmp_path: Path) -> None:
    def row(way: str, instances: int, in_flight: int, per_s: float) -> dict[str, object]:
        several = {"instances": instances, "in_flight": in_flight}
        return {"model": "runet", "way": way, "frames_per_s": per_s, **several}

    report = {
        "device": "a device",
        "command": "python -m benchmark chain --passes 2",
        "networks": {"runet": "x2, 1920x1080 to 3840x2160"},
        "rows": [
            row("gateway_shm", 1, 1, 40.0),
            row("gateway_shm", 1, 4, 50.0),
            row("triton_shm", 1, 4, 60.0),
            row("gateway_shm", 4, 4, 120.0),
        ],
    }
    (tmp_path / "chain-device.json").write_text(json.dumps(report))
    one, four = from_reports(tmp_path)
    assert (one.frames_per_s, four.frames_per_s) == (50, 30)
    assert four.what == "runet x2, 1920x1080, through the service, 4 on the device"
    assert four.command == "benchmark chain"


def test_of_a_running_service_the_best_batch_counts() -> None:
    times = tuple(
        BatchTime("triton:8001", width, 1080, frames, predicted_s)
        for width, frames, predicted_s in ((1920, 1, 0.004), (1920, 4, 0.01), (1920, 8, 0.04), (960, 1, 0.001))
    )
    served = Served("runet_x2_clean", "runet", 2, "clean", 8, True, True, "rgb24", times)
    small, large = from_service([served], "here:1")
    assert (small.what, small.frames_per_s) == ("runet_x2_clean, 960x1080, batches of 1", 1000)
    assert (large.what, large.frames_per_s) == ("runet_x2_clean, 1920x1080, batches of 4", 400)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--reports", "/nowhere"], "--reports /nowhere: "), (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: ")],
)
def test_what_cannot_be_read_is_one_line(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "benchmark", "sizing", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"benchmark: {words}")
    assert done.stderr.count("\n") == 1
