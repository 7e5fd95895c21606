"""RUNet against the report's numbers, and its two forms against each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.complexity import PROTOCOL_SIZES, complexity
from models.blocks.rep import RepVGGConv
from models.blocks.resample import BicubicUpsample, PolyphaseUpsample
from models.registry import UnknownModelError, UnsupportedScaleError, get, require_scale, specs
from models.reparam import reparameterise


def randomised(scale: int) -> nn.Module:
    torch.manual_seed(scale)
    network = get("runet").build(scale).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize(("scale", "params", "gmacs"), [(2, 66_764, 15.3281), (3, 240_432, 13.8019)])
def test_deployed_form_costs_what_the_report_prints(scale: int, params: int, gmacs: float) -> None:
    spec = get("runet")
    cost = complexity(reparameterise(spec.build(scale)), *PROTOCOL_SIZES[scale])
    assert cost.params == params
    assert round(cost.macs_official / 1e9, 4) == gmacs == spec.reported[scale].gmacs
    assert round(cost.macs / 1e9, 4) == gmacs
    assert round(params / 1e6, 4) == spec.reported[scale].params_m


@pytest.mark.parametrize("scale", [2, 3])
def test_training_and_deployed_form_are_equal(scale: int) -> None:
    network = randomised(scale)
    frames = torch.rand(2, 3, 24, 36, dtype=torch.float64)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(3):
        deployed = reparameterise(network)
        assert not any(isinstance(module, RepVGGConv) for module in deployed.modules())
        with torch.no_grad():
            torch.testing.assert_close(deployed(frames), network(frames), rtol=0, atol=1e-9)
        network(frames).square().mean().backward()
        optimiser.step()


def test_online_merge_is_the_sum_of_the_branches() -> None:
    torch.manual_seed(0)
    block = RepVGGConv(7).double()
    x = torch.rand(1, 7, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.branches(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (30, 31)])
def test_any_size_is_enlarged_exactly(scale: int, size: tuple[int, int]) -> None:
    network = randomised(scale).eval()
    height, width = size
    with torch.no_grad():
        assert network(torch.rand(1, 3, height, width).double()).shape == (1, 3, height * scale, width * scale)


@pytest.mark.parametrize("scale", [2, 3])
def test_an_untrained_network_is_bicubic(scale: int) -> None:
    frames = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(get("runet").build(scale)(frames), BicubicUpsample(scale)(frames))


@pytest.mark.parametrize("scale", [2, 3])
def test_polyphase_upsampling_is_bicubic_up_to_the_border(scale: int) -> None:
    frames = torch.rand(2, 3, 19, 28)
    torch.testing.assert_close(PolyphaseUpsample(scale)(frames), BicubicUpsample(scale)(frames), rtol=0, atol=1e-5)


def test_registry_names_what_it_has() -> None:
    assert "runet" in specs()
    with pytest.raises(UnknownModelError, match=r"unknown model 'nope'; known are: .*runet"):
        get("nope")
    with pytest.raises(UnsupportedScaleError, match="has no x4; its scales are: x2, x3"):
        require_scale(get("runet"), 4)
