"""Every method as its user meets it: exported by the command, served by the real Triton, answered by the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.embedded import EmbeddedTriton
from export.graph import deployed_graph
from models.registry import specs
from models.weights import DEFAULT_PROFILE, load, untrained, weights_path
from tests.conftest import StartGateway
from upscale_client import UpscaleClient

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = [(spec, scale) for spec in specs().values() for scale in spec.scales]
PROFILE = DEFAULT_PROFILE

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with everything."""
    folder = tmp_path_factory.mktemp("zoo")
    subprocess.run(
        [sys.executable, "export/", "--model", "all", "--scale", "all", "--repository", str(folder)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@pytest.fixture(scope="module")
def client(zoo: Path, start_gateway: StartGateway) -> Iterator[UpscaleClient]:
    """A client of a gateway before a Triton that holds everything."""
    with EmbeddedTriton(zoo) as triton:
        gateway = start_gateway(triton.url)
        with UpscaleClient(gateway.address) as client:
            yield client
        gateway.stop()


def test_every_variant_is_exported_within_one_grey_level(zoo: Path) -> None:
    assert {path.name for path in zoo.iterdir()} == {f"{spec.name}_x{scale}_{PROFILE}" for spec, scale in VARIANTS}
    for spec, scale in VARIANTS:
        manifest = json.loads((zoo / f"{spec.name}_x{scale}_{PROFILE}" / "1" / "manifest.json").read_text())
        assert manifest["parity"]["max_difference"] <= 1
        assert manifest["trained"] == (not spec.learned or weights_path(spec, scale, PROFILE).exists())
        assert (manifest["weights_sha256"] is not None) == (spec.learned and manifest["trained"])


def test_every_variant_answers_as_its_network(client: UpscaleClient) -> None:
    rng = np.random.default_rng(0)
    wrong: list[str] = []
    for spec, scale in VARIANTS:
        frame = rng.integers(0, 256, (46, 61, 3), dtype=np.uint8)
        has_weights = not spec.learned or weights_path(spec, scale, PROFILE).exists()
        network = load(spec, scale, PROFILE) if has_weights else untrained(spec, scale)
        with torch.inference_mode():
            expected = deployed_graph(spec, network)(torch.from_numpy(frame[None]))[0].numpy()
        answer = client.upscale(frame, model=spec.name, scale=scale, profile=PROFILE)
        assert answer.variant == f"{spec.name}_x{scale}_{PROFILE}"
        difference = int(np.abs(answer.array.astype(np.int16) - expected).max())
        if difference > 1:
            wrong.append(f"{answer.variant}: {difference} grey levels")
    assert not wrong


def test_random_weights_are_told_from_trained_ones(client: UpscaleClient) -> None:
    trained = {(served.model, served.scale): served.trained for served in client.list_models()}
    assert trained == {
        (spec.name, scale): not spec.learned or weights_path(spec, scale, PROFILE).exists() for spec, scale in VARIANTS
    }
    assert trained["runet", 2]
    assert trained["bicubic", 3]
