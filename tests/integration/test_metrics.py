"""A real Prometheus scrapes the real gateway."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from deploy.local import GatewayProcess
from service.metrics import OUTCOMES, Metrics
from tests.prometheus import Prometheus
from upscale_client import UpscaleClient, UpscaleError

Query = Callable[[str], dict[str, float]]
FRAME = np.zeros((90, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def query(gateway: GatewayProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """Ask a Prometheus that scrapes the gateway; a result by its labels other than job and instance."""
    targets = {"gateway": [f"127.0.0.1:{gateway.metrics_port}"]}
    with Prometheus(tmp_path_factory.mktemp("prometheus"), targets) as prometheus:
        ours = ("__name__", "instance", "job")

        def ask(expression: str) -> dict[str, float]:
            return {
                ",".join(value for key, value in sorted(labels.items()) if key not in ours): each
                for labels, each in prometheus.ask(expression)
            }

        yield ask


def test_what_happens_is_counted(query: Query, client: UpscaleClient) -> None:
    before = query("upscale_frames_total")
    for _ in range(3):
        client.upscale(FRAME, scale=2, budget_s=30)
    with pytest.raises(UpscaleError):
        client.upscale(FRAME, model="nope")
    with pytest.raises(UpscaleError):
        client.upscale(FRAME, budget_s=-1)
    time.sleep(1)
    after = query("upscale_frames_total")
    grown = {labels: count - before.get(labels, 0) for labels, count in after.items() if count != before.get(labels, 0)}
    assert grown == {"OK,Upscale,runet_x2_clean": 3, "NOT_FOUND,Upscale": 1, "INVALID_ARGUMENT,Upscale": 1}
    assert query("upscale_triton_up").popitem()[1] == 1
    assert query("upscale_inflight_frames") == {"": 0}
    assert sum(query("upscale_slots").values()) == 16
    assert query('grpc_server_handled_total{grpc_code="NOT_FOUND"}').popitem()[1] >= 1


def test_frames_with_a_budget_are_counted_by_how_they_ended(query: Query, client: UpscaleClient) -> None:
    before = query("upscale_budget_frames_total")
    client.upscale(FRAME, scale=2, budget_s=30)
    client.upscale(FRAME, scale=2)  # asks for none
    client.upscale(FRAME, scale=2, budget_s=30, priority="offline")
    with pytest.raises(UpscaleError):
        client.upscale(FRAME, scale=2, budget_s=1e-9)  # spent before it could be looked at
    with pytest.raises(UpscaleError):
        client.upscale(FRAME, model="nope", budget_s=30)
    expected = {
        "met,live,runet_x2_clean": 1,
        "met,offline,runet_x2_clean": 1,
        "spent,live,runet_x2_clean": 1,
        "void,live": 1,
    }
    grown: dict[str, float] = {}
    deadline = time.monotonic() + 10
    while grown != expected and time.monotonic() < deadline:
        time.sleep(0.2)
        after = query("upscale_budget_frames_total")
        grown = {each: count - before.get(each, 0) for each, count in after.items() if count > before.get(each, 0)}
    assert grown == expected
    assert {labels.split(",")[0] for labels in query("upscale_budget_frames_total")} == set(OUTCOMES)


def test_the_event_loop_tells_when_it_last_came_round(query: Query) -> None:
    (age,) = query("time() - upscale_loop_turned_timestamp_seconds").values()
    assert age < 5
    (up_for,) = query("time() - upscale_started_timestamp_seconds").values()
    assert age < up_for
    assert query("upscale_workers") == {"": 1}
    assert query("upscale_loop_lag_seconds_count")[""] > 0


def test_stages_make_the_total(query: Query, client: UpscaleClient) -> None:
    client.upscale(FRAME, scale=2)
    time.sleep(1)
    sums = query('upscale_frame_seconds_sum{variant="runet_x2_clean"}')
    stages = {labels.split(",")[0]: seconds for labels, seconds in sums.items()}
    assert stages.keys() == {"receive", "decode", "queue", "infer", "encode", "total"}
    assert sum(seconds for stage, seconds in stages.items() if stage != "total") == pytest.approx(stages["total"])
    inside = (
        'sum(upscale_frame_seconds_bucket{stage="total",le="+Inf"}) / sum(upscale_frame_seconds_count{stage="total"})'
    )
    assert query(inside) == {"": 1.0}


def test_every_metric_has_its_prefix_a_help_and_base_units() -> None:
    for family in Metrics().registry.collect():
        assert family.name.startswith(("upscale_", "grpc_server_"))
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_milliseconds", "_kb"))


def test_a_fleet_is_sized_by_what_the_service_has_timed(gateway: GatewayProcess, client: UpscaleClient) -> None:
    client.upscale(FRAME, scale=2)
    command = [sys.executable, "-m", "benchmark", "sizing", "--address", gateway.address, "--streams", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    assert "3 x 60 frames/s" in done.stdout
    assert "runet_x2_clean, 160x90, batches of 1" in done.stdout
