"""Every method: its two forms against each other, any frame size, and what the report prints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from benchmark.complexity import PROTOCOL_SIZES, Row, complexity, rows
from models.blocks.rep import RepConv
from models.registry import UnknownModelError, UnsupportedScaleError, get, require_scale, specs
from models.reparam import Mergeable, reparameterise
from models.spec import ModelSpec

VARIANTS = [pytest.param(spec, scale, id=f"{spec.name}-x{scale}") for spec in specs().values() for scale in spec.scales]


def randomised(spec: ModelSpec, scale: int) -> nn.Module:
    """A network in float64 whose every parameter and running statistic is at work."""
    torch.manual_seed(scale)
    network = spec.build(scale).double()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def by_definition(network: nn.Module) -> nn.Module:
    """A copy whose re-parameterisable convolutions run branch by branch, as they are defined."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, RepConv):
            module.forward = module.branches
    return copied


@pytest.mark.parametrize(("spec", "scale"), VARIANTS)
def test_training_and_deployed_form_are_equal(spec: ModelSpec, scale: int) -> None:
    network = randomised(spec, scale)
    frames = torch.rand(1, 3, 22, 18, dtype=torch.float64) * spec.input_range
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3) if spec.learned else None
    for _ in range(3):
        deployed = reparameterise(network)
        assert not any(isinstance(module, Mergeable) for module in deployed.modules())
        with torch.no_grad():
            expected = by_definition(network.eval())(frames) / spec.input_range
            torch.testing.assert_close(deployed(frames) / spec.input_range, expected, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(network(frames) / spec.input_range, expected, rtol=1e-9, atol=1e-9)
        if optimiser is not None:
            optimiser.zero_grad()
            (network.train()(frames) / spec.input_range).square().mean().backward()
            optimiser.step()


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (46, 61)])
@pytest.mark.parametrize(("spec", "scale"), VARIANTS)
def test_any_size_is_enlarged_exactly(spec: ModelSpec, scale: int, size: tuple[int, int]) -> None:
    network = reparameterise(spec.build(scale))
    height, width = size
    with torch.no_grad():
        y = network(torch.rand(1, 3, height, width) * spec.input_range)
    assert y.shape == (1, 3, height * scale, width * scale)
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize(("spec", "scale"), VARIANTS)
def test_frames_of_a_batch_do_not_meet(spec: ModelSpec, scale: int) -> None:
    network = reparameterise(randomised(spec, scale))
    frames = torch.rand(2, 3, 24, 30, dtype=torch.float64) * spec.input_range
    with torch.no_grad():
        together: Tensor = network(frames)
        for frame, answer in zip(frames, together, strict=True):
            alone = network(frame[None])[0]
            torch.testing.assert_close(answer / spec.input_range, alone / spec.input_range, rtol=1e-9, atol=1e-9)


def test_the_whole_table_is_there() -> None:
    at = {scale: {name for name, spec in specs().items() if scale in spec.scales} - {"bicubic"} for scale in (2, 3)}
    assert {scale: len(names) for scale, names in at.items()} == {2: 24, 3: 17}
    assert len(at[2] | at[3]) == 25, "24 teams and the baseline"


def test_rows_meet_the_report() -> None:
    measured = {(row.model, row.scale): row for row in rows()}
    verdicts = [row.verdict for row in measured.values() if row.model != "bicubic"]
    assert verdicts.count("exact") == 31
    assert verdicts.count("within 2%") == 8
    different = {key for key, row in measured.items() if row.verdict == "different"}
    assert different == {("drcnn", 3), ("npu_ecbsr_wavelet", 2)}
    assert all(row.note for row in measured.values() if row.verdict in ("within 2%", "different"))
    assert measured["bicubic", 2].verdict == "reference"


@pytest.mark.parametrize(
    ("model", "scale", "params", "gmacs"), [("ynot", 2, 464_764, 933.145), ("erlfn", 3, 66_610, 53.774)]
)
def test_rows_of_another_configuration_say_so(model: str, scale: int, params: int, gmacs: float) -> None:
    (row,) = (row for row in rows(only=model) if row.scale == scale)
    assert row.verdict == "exact"
    assert "the report" in row.note
    assert row.params == params
    assert row.macs_official / 1e9 == pytest.approx(gmacs, abs=5e-4)


def test_a_lost_layer_changes_the_verdict() -> None:
    spec = get("runet")
    network = reparameterise(spec.build(2))
    whole = Row.of(spec, 2, complexity(network, *PROTOCOL_SIZES[2]))
    body = network.get_submodule("body")
    assert isinstance(body, nn.Sequential)
    del body[0]
    assert whole.verdict == "exact"
    assert Row.of(spec, 2, complexity(network, *PROTOCOL_SIZES[2])).verdict == "different"


def test_registry_names_what_it_has() -> None:
    with pytest.raises(UnknownModelError, match=r"unknown model 'nope'; known are: .*runet"):
        get("nope")
    with pytest.raises(UnsupportedScaleError, match="has no x4; its scales are: x2, x3"):
        require_scale(get("runet"), 4)
    with pytest.raises(UnsupportedScaleError, match="model 'qqcoin' has no x3; its scales are: x2"):
        require_scale(get("qqcoin"), 3)
