"""Every query of every dashboard has an answer, from a real Prometheus that scrapes a gateway and Triton at work."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from deploy.embedded import EmbeddedTriton
from deploy.grafana.boards import FOLDER
from deploy.grafana.panels import GPU_ROW
from deploy.local import ROOT, GatewayProcess
from export.exporter import export_variant
from models.registry import get
from models.weights import WEIGHTS_DIR
from tests.conftest import StartGateway, metric
from tests.prometheus import Prometheus
from upscale_client import UpscaleClient, UpscaleError

RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))
BOARDS: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
HAS_GPU = Path("/dev/nvidiactl").exists()
NOBODY = "127.0.0.1:1"
HD = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
RUNET, BICUBIC = "runet_x2_clean", "bicubic_x2_clean"


class Load:
    """Frames of every fate."""

    def __init__(self, triton: EmbeddedTriton, gateway: GatewayProcess, client: UpscaleClient) -> None:
        self._triton = triton
        self._gateway = gateway
        self._client = client
        self._shares = itertools.cycle([0.5, 1.0, 1.5, 2.0])
        self._last_error: UpscaleError | None = None

    def until(self, counter: str, act: Callable[[], None]) -> None:
        """Do it again until it is counted."""
        deadline = time.monotonic() + 40
        while not metric(self._gateway, counter):
            assert time.monotonic() < deadline, f"{counter} stays 0; last: {self._last_error}"
            act()

    def _upscale(self, **wishes: Any) -> None:
        try:
            self._client.upscale(HD, scale=2, **wishes)
        except UpscaleError as error:
            self._last_error = error

    def _seconds(self, variant: str) -> float:
        (found,) = [each for each in self._client.list_models() if each.name == variant]
        return min(each.predicted_s for each in found.batch_times if (each.width, each.frames) == (320, 1))

    def answered(self) -> None:
        """Single frames, live and offline, and a session's."""
        self._upscale(budget_s=30)
        self._upscale(priority="offline")
        assert len(list(self._client.stream([HD] * 3, scale=2, budget_s=30))) == 3

    def stepped_down(self) -> None:
        """A budget that is enough for bicubic alone; how much is lost on the way to Triton and back, nobody tells."""
        least, most = self._seconds(BICUBIC), self._seconds(RUNET)
        self._upscale(budget_s=least + next(self._shares) * max(0.0, most - least), step_down=True)

    def too_small(self) -> None:
        """A budget that is not enough for anybody."""
        self._upscale(budget_s=0.002)

    def refused(self) -> None:
        """More at once than there is room for."""
        with ThreadPoolExecutor(12) as crowd:
            for _ in range(12):
                crowd.submit(self._upscale)

    def late(self) -> None:
        """Triton is held up when the frame comes."""
        budget_s = 4 * self._seconds(RUNET) + 0.1
        frame = threading.Thread(target=self._upscale, kwargs={"budget_s": budget_s})
        os.killpg(self._triton.pid, signal.SIGSTOP)
        try:
            frame.start()
            time.sleep(budget_s)
        finally:
            os.killpg(self._triton.pid, signal.SIGCONT)
        frame.join()

    def failed(self) -> None:
        """A network is taken away, which the gateway has not seen yet."""
        with contextlib.closing(InferenceServerClient(self._triton.url)) as direct:
            direct.unload_model(RUNET)
        self._upscale(budget_s=30)


@pytest.fixture(scope="module")
def prometheus(
    repository: Path, start_gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """It has seen frames answered, late, stepped down, refused and failed, and goes on to see some answered."""
    folder = tmp_path_factory.mktemp("dashboards")
    shutil.copytree(repository / RUNET, folder / RUNET)
    export_variant(get("bicubic"), 2, "clean", repository=folder, weights=WEIGHTS_DIR)
    with EmbeddedTriton(folder) as triton:
        gateway = start_gateway(
            triton.url, warm_up_s=10, max_output_pixels=640 * 360, max_inflight_frames=4, triton_poll_s=3
        )
        targets = {
            "gateway": [f"127.0.0.1:{gateway.metrics_port}", NOBODY],
            "triton": [f"127.0.0.1:{triton.metrics_port}"],
        }
        with (
            Prometheus(tmp_path_factory.mktemp("prometheus"), targets, RULES) as prometheus,
            UpscaleClient(gateway.address) as client,
        ):
            load = Load(triton, gateway, client)
            load.answered()
            load.until("upscale_stepped_down_total{", load.stepped_down)
            load.until('upscale_shed_total{reason="overloaded"', load.refused)
            load.until('upscale_budget_frames_total{outcome="late"', load.late)
            load.until('upscale_shed_total{reason="budget_too_small"', load.too_small)
            load.until("upscale_batch_failures_total{", load.failed)
            stop = threading.Event()

            def go_on() -> None:
                while not stop.wait(0.1):
                    with contextlib.suppress(UpscaleError):
                        client.upscale(HD, model="bicubic", scale=2, budget_s=30)

            going_on = threading.Thread(target=go_on)
            going_on.start()
            yield prometheus
            stop.set()
            going_on.join()
        gateway.stop()


def asked(query: str) -> str:
    """A query with Grafana's variables filled in, everything chosen."""
    query = query.replace("$__rate_interval", "1m").replace("$__range", "5m")
    return re.sub(r"\$\w+", ".*", query)


def has_data(prometheus: Prometheus, query: str) -> bool:
    return any(not math.isnan(value) for _, value in prometheus.ask(query))


def has_values(prometheus: Prometheus, query: str) -> bool:
    """Of a variable's query, label_values(selector, label)."""
    found = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    assert found, query
    return any(prometheus.label_values(found[2], found[1]))


def panels() -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Board, panel, and whether only a GPU gives it."""
    for board in BOARDS:
        under_gpu = False
        for panel in board["panels"]:
            if panel["type"] == "row":
                under_gpu = panel["title"] == GPU_ROW
            yield board["title"], panel, under_gpu


def test_every_query_of_every_panel_and_variable_has_an_answer(prometheus: Prometheus) -> None:
    waiting: dict[str, Callable[[Prometheus, str], bool]] = {}
    places: dict[str, str] = {}
    for board, panel, under_gpu in panels():
        for target in panel.get("targets", []):
            query = asked(target["expr"])
            places[query] = f"{board}, {panel['title']}"
            if under_gpu and not HAS_GPU:
                assert prometheus.ask(query) == [], "no GPU, and yet an answer"  # and it is a valid expression
            else:
                waiting[query] = has_data
    for board in BOARDS:
        for variable in board["templating"].get("list", []):
            if variable["type"] == "query":
                query = asked(variable["query"])
                places[query] = f"{board['title']}, ${variable['name']}"
                waiting[query] = has_values
    assert len(waiting) > 80
    deadline = time.monotonic() + 60
    while waiting and time.monotonic() < deadline:
        waiting = {query: answers for query, answers in waiting.items() if not answers(prometheus, query)}
        time.sleep(0.5)
    assert not waiting, "\n".join(f"{places[query]}: no data for {query}" for query in waiting)


def test_a_query_without_an_answer_is_noticed(prometheus: Prometheus) -> None:
    assert not has_data(prometheus, "upscale_nonsense_total")
    assert not has_data(prometheus, "0 / sum(upscale_sessions * 0)"), "NaN is no answer"
    assert not has_values(prometheus, "label_values(upscale_build_info, nonsense)")
    with pytest.raises(ValueError, match="parse error"):
        prometheus.ask("sum by (")


def test_rules_are_evaluated_on_what_the_service_gives(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + 30
    while not (found := [each for each in prometheus.alerts() if each["labels"]["alertname"] == "UpscaleGatewayDown"]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert found[0]["labels"]["instance"] == NOBODY
    assert f"the metrics of {NOBODY}" in found[0]["annotations"]["description"]
    # Some of the load's frames were missed first. Those that are not are counted with the next evaluations.
    while True:
        (missed,) = (value for _, value in prometheus.ask("job:upscale_slo_missed:ratio_rate1h"))
        if 0 < missed < 1:
            break
        assert time.monotonic() < deadline, missed
        time.sleep(0.5)
