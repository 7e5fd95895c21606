"""The dashboards are what the code says, and every panel says what a person at night needs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana import runbook
from deploy.grafana.boards import FOLDER, written
from deploy.grafana.panels import GPU_ROW
from service.metrics import Metrics

GRAFANA = FOLDER.parent
BOARDS: dict[str, dict[str, Any]] = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PANELS: list[dict[str, Any]] = [panel for board in BOARDS.values() for panel in board["panels"]]
SHOWN = [panel for panel in PANELS if panel["type"] not in ("row", "text")]
# Of tritonserver's documentation, "GPU Metrics": what it counts by DCGM, where there is a GPU.
GPU_METRICS = {
    "nv_gpu_power_usage",
    "nv_gpu_power_limit",
    "nv_energy_consumption",
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
}


def test_the_files_are_what_the_code_says() -> None:
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == written(), "run: make dashboards"


def test_every_panel_has_a_unit_a_line_thresholds_and_a_legend() -> None:
    for panel in SHOWN:
        title, defaults = panel["title"], panel["fieldConfig"]["defaults"]
        assert defaults["unit"], title
        assert defaults["thresholds"]["steps"], title
        assert panel["description"].endswith((".", "?")), title
        assert "\n" not in panel["description"], title
        assert 20 < len(panel["description"]) < 250, title
        for target in panel["targets"]:
            assert target["legendFormat"], title
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"]["showLegend"], title


def test_addresses_and_numbers_are_unique_and_panels_do_not_overlap() -> None:
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
    for name, board in BOARDS.items():
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]), name
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (place.get("x", 0) + column, place.get("y", 0) + line)
                for column in range(place["w"])
                for line in range(place["h"])
            }
            assert not cells & taken, f"{name}: {panel['title']}"
            assert place.get("x", 0) + place["w"] <= 24, f"{name}: {panel['title']}"
            taken |= cells


def test_links_to_the_runbook_lead_to_what_they_say() -> None:
    entries = {panel["id"]: panel["title"] for panel in BOARDS["runbook.json"]["panels"]}
    linked = 0
    for panel in SHOWN:
        for link in panel.get("links", []):
            found = re.fullmatch(rf"/d/{runbook.UID}(?:\?viewPanel=(\d+))?", link["url"])
            assert found, link
            if found[1]:
                assert link["title"] == f"Runbook: {entries[int(found[1])]}"
                linked += 1
    assert linked > 20


def test_a_link_to_no_entry_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in list"):
        runbook.url("UpscaleNonsense")


def test_the_gpu_row_holds_all_that_only_a_gpu_gives_and_names_what_triton_documents() -> None:
    under_gpu = False
    named: set[str] = set()
    for panel in PANELS:
        if panel["type"] == "row":
            under_gpu = panel["title"] == GPU_ROW
            continue
        for target in panel.get("targets", []):
            metrics = set(re.findall(r"\bnv_(?:gpu|energy)\w+", target["expr"]))
            assert bool(metrics) == under_gpu, panel["title"]
            named |= metrics
    assert named
    assert named <= GPU_METRICS


def test_grafana_is_told_where_they_are() -> None:
    def read(path: str) -> dict[str, Any]:
        return yaml.safe_load((GRAFANA / "provisioning" / Path(path)).read_text())

    (provider,) = read("dashboards/upscale.yml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    (source,) = read("datasources/prometheus.yml")["datasources"]
    assert source["type"] == "prometheus"
    scraped = yaml.safe_load((GRAFANA.parent / "prometheus" / "prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]


def test_the_runbook_names_dashboards_panels_and_metrics_that_there_are() -> None:
    page = " ".join(runbook.PAGE.read_text().split())
    boards = set(re.findall(r'"(Upscaling: [^"]+)"', page))
    assert boards <= {board["title"] for board in BOARDS.values()}
    panels = {name.rstrip(",") for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", page)}
    assert len(panels) > 15
    assert panels <= {panel["title"] for panel in PANELS}
    metrics = set(re.findall(r"\bupscale_[a-z_]+", page))
    families = {family.name for family in Metrics().registry.collect()}
    assert {name.removesuffix("_total") for name in metrics if not name.endswith("_")} <= families
