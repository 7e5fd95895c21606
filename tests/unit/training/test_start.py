"""Where a network begins: the frame's own pixels, and a solved last convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.blocks.rep import EdgeConv, OnlineConv, RepVGGConv, WideConv
from models.registry import get, specs
from models.spec import ModelSpec
from tests.pictures import SETTINGS
from training.patches import Batches, load_patches
from training.start import assign, solve_last_convolution


@pytest.mark.parametrize("spec", [pytest.param(spec, id=spec.name) for spec in specs().values() if spec.learned])
def test_the_last_convolution_is_solved(spec: ModelSpec, pictures: Path) -> None:
    """One solution is worth more than many steps: the error on the batches it was solved on falls at once."""
    for scale in spec.scales:
        torch.manual_seed(1)
        network = spec.build(scale)
        batches = [Batches(load_patches(pictures, 48), scale, SETTINGS)[step] for step in range(4)]
        before = error(network, batches, spec.input_range)
        solved = solve_last_convolution(network, batches, spec.input_range)
        assert solved == (spec.name != "dh_isp"), "dh_isp ends in a sigmoid"
        if solved:
            # RUNet starts as bicubic and has less to win.
            assert error(network, batches, spec.input_range) < (0.95 if spec.name == "runet" else 0.5) * before


@pytest.mark.parametrize(("name", "last"), [("asconvsr", "tail"), ("qqcoin", "body.2"), ("rt4ksr", "tail.2")])
def test_the_last_convolution_is_given_the_frame(name: str, last: str) -> None:
    """From the features that random weights make, a linear map brings the pixels back."""
    torch.manual_seed(0)
    network = get(name).build(2)
    seen: list[torch.Tensor] = []
    network.get_submodule(last).register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    frame = nn.functional.interpolate(torch.rand(4, 3, 12, 12), scale_factor=4)
    with torch.no_grad():
        network(frame * get(name).input_range)
    side = frame.shape[-1] // seen[0].shape[-1]
    pixels, features = (
        x.permute(0, 2, 3, 1).flatten(0, 2).double() for x in (nn.functional.pixel_unshuffle(frame, side), seen[0])
    )
    features = nn.functional.pad(features, (0, 1), value=1.0)
    found = features @ torch.linalg.lstsq(features, pixels, driver="gelsd").solution
    assert (found - pixels).square().mean().sqrt() < 0.05


def test_scsyenets_products_are_no_smaller_than_the_frame(pictures: Path) -> None:
    """Smaller ones would need a last kernel so large that no step of training moves it."""
    torch.manual_seed(0)
    network = get("scsyenet").build(2)
    lr, _ = Batches(load_patches(pictures, 48), 2, SETTINGS)[0]
    with torch.no_grad():
        first = network.get_submodule("unit1")(lr)
        second = network.get_submodule("unit2")(first)
    spread = lr.std((2, 3)).mean()
    for product in (first, second):
        assert product.std((2, 3)).mean() > 0.3 * spread


def test_qqcoin_starts_with_the_frame_and_the_frame_blurred() -> None:
    network = get("qqcoin").build(2)
    frame = torch.zeros(1, 3, 5, 5)
    frame[0, 1, 2, 2] = 160.0
    with torch.no_grad():
        features = network.get_submodule("body.0")(frame)[0]
    torch.testing.assert_close(features[:3], frame[0])
    assert features[4, 1:4, 1:4].tolist() == [[10.0, 20.0, 10.0], [20.0, 40.0, 20.0], [10.0, 20.0, 10.0]]
    assert features.sum() == 320.0


def error(network: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], input_range: float) -> float:
    with torch.no_grad():
        outputs = [network.train()(lr * input_range) / input_range for lr, _ in batches]
    return float(np.mean([(y - hr).square().mean() for y, (_, hr) in zip(outputs, batches, strict=True)]))


def test_a_solved_kernel_is_what_the_layer_computes() -> None:
    for layer in (OnlineConv(4, 12), EdgeConv(4, 12), RepVGGConv(4, 12), WideConv(4, 12, width=64, projection=True)):
        biased = layer.kernel_and_bias()[1] is not None
        kernel, bias = torch.randn(12, 4, 3, 3), torch.randn(12) if biased else None
        with torch.no_grad():
            assign(layer, kernel, bias)
            now, now_bias = layer.kernel_and_bias()
        torch.testing.assert_close(now, kernel, rtol=1e-4, atol=1e-4)
        if bias is not None:
            torch.testing.assert_close(now_bias, bias, rtol=1e-4, atol=1e-4)
