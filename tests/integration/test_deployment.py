"""What the files in deploy/ rely on: the probes are answered by the real gateway and the real Triton."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.embedded import EmbeddedTriton
from deploy.local import GatewayProcess

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"


def probes(file: str) -> set[tuple[str, str]]:
    """The port's name and the path of every probe in a file."""
    spec: Any = yaml.safe_load((KUBERNETES / file).read_text())["spec"]["template"]["spec"]
    found = [
        each[f"{kind}Probe"]["httpGet"]
        for each in [*spec.get("initContainers", []), *spec.get("containers", [])]
        for kind in ("startup", "readiness", "liveness")
        if f"{kind}Probe" in each
    ]
    assert found
    return {(each["port"], each["path"]) for each in found}


@pytest.mark.parametrize(
    "file", ["base/gateway/deployment.yaml", "base/triton/deployment.yaml", "overlays/single-host/sidecar.yaml"]
)
def test_the_probes_are_answered(file: str, gateway: GatewayProcess, triton: EmbeddedTriton) -> None:
    ports = {"metrics": gateway.metrics_port, "http": triton.http_port, "triton-http": triton.http_port}
    for port, path in probes(file):
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[port]}{path}", timeout=10) as answer:
            assert answer.status == 200
