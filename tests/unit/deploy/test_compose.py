"""The Compose files: valid, and agreeing with the image, the settings and the files they mount."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings, unknown_variables

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "deploy" / "compose"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
UNITS = {"m": 1 << 20, "g": 1 << 30}


class _Loader(yaml.SafeLoader):
    """YAML with Compose's own tag for what an override removes."""


_Loader.add_constructor("!reset", lambda *_: None)


def read(name: str) -> dict[str, Any]:
    return yaml.load((COMPOSE / name).read_text(), _Loader)


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    return read("compose.yaml")["services"]


def test_it_is_what_the_specification_allows() -> None:
    command = [".venv/bin/check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE / "compose.yaml"]
    subprocess.run(command, cwd=ROOT, check=True)


def test_the_override_takes_the_gpu_away_and_nothing_else(services: dict[str, dict[str, Any]]) -> None:
    assert read("compose.cpu.yaml") == {"services": {"triton": {"deploy": None}}}
    assert services["triton"]["deploy"]["resources"].keys() == {"reservations"}


def test_the_settings_are_settings(services: dict[str, dict[str, Any]]) -> None:
    variables = {name: each for name, each in services["gateway"]["environment"].items() if name.startswith("UPSCALE_")}
    assert unknown_variables(variables) == []
    settings = Settings(**{name.removeprefix("UPSCALE_").lower(): each for name, each in variables.items()})
    host, port = settings.triton_url.split(":")
    assert host in services
    assert port == "8001", "Triton's own default"
    assert services["gateway"]["ports"] == [f"127.0.0.1:{settings.port}:{settings.port}"]
    assert f"EXPOSE {settings.port} {settings.metrics_port}" in DOCKERFILE.read_text()
    assert f"http://127.0.0.1:{settings.metrics_port}/readyz" in services["gateway"]["healthcheck"]["test"][-1]
    assert float(services["gateway"]["stop_grace_period"].removesuffix("s")) >= settings.shutdown_grace_s + 20


def test_gateway_and_triton_map_the_same_frames(services: dict[str, dict[str, Any]]) -> None:
    assert all("frames:/dev/shm" in services[name]["volumes"] for name in ("gateway", "triton"))
    frames = read("compose.yaml")["volumes"]["frames"]["driver_opts"]
    assert frames["type"] == frames["device"] == "tmpfs"
    size = re.search(r"size=(\d+)([mg])", frames["o"])
    assert size
    settings = Settings(shared_memory_bytes=int(services["gateway"]["environment"]["UPSCALE_SHARED_MEMORY_BYTES"]))
    assert int(size[1]) * UNITS[size[2]] > settings.shared_memory_bytes * settings.workers
    assert f"USER {services['triton']['user']}" in DOCKERFILE.read_text(), "the frames' files have mode 0600"


def test_triton_is_as_in_kubernetes(services: dict[str, dict[str, Any]]) -> None:
    deployment = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / "triton" / "deployment.yaml").read_text())
    (triton,) = deployment["spec"]["template"]["spec"]["containers"]
    assert services["triton"]["image"] == triton["image"]
    given = [each.replace("$(MODEL_REPOSITORY)", "/models") for each in triton["args"]]
    assert services["triton"]["command"] == [*triton["command"], *given]


def test_what_is_mounted_is_there(services: dict[str, dict[str, Any]]) -> None:
    named = read("compose.yaml")["volumes"].keys()
    sources = {volume.split(":")[0] for service in services.values() for volume in service["volumes"]} - named
    assert sources >= {"../prometheus/prometheus.yml", "../prometheus/rules", "../grafana/dashboards"}
    for source in sources:
        assert (COMPOSE / source).exists(), source
    build = services["gateway"]["build"]
    assert (COMPOSE / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE
