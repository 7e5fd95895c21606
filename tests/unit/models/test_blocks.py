"""Shared blocks, held against what they say they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.blocks.attention import SpatialAttention
from models.blocks.conv import AssembledConv, PartialConv
from models.blocks.fourier import FourierUnit
from models.blocks.rep import (
    ConvBN,
    ConvBNConv,
    EdgeConv,
    ExpandSqueezeConv,
    OnlineConv,
    RepConv,
    RepVGGConv,
    Scaled,
    WideConv,
    carry_frame,
)
from models.blocks.resample import BicubicUpsample, PolyphaseUpsample, pad_to_multiple, repeat_pixels
from models.blocks.wavelet import HaarTransform, InverseSubband, Subband

REP_CONVS: dict[str, Callable[[], RepConv]] = {
    "RepVGGConv": lambda: RepVGGConv(5),
    "RepVGGConv wider": lambda: RepVGGConv(3, 7, bias=False),
    "EdgeConv": lambda: EdgeConv(5),
    "EdgeConv wider": lambda: EdgeConv(3, 7),
    "ExpandSqueezeConv": lambda: ExpandSqueezeConv(5),
    "WideConv": lambda: WideConv(5, width=11),
    "WideConv wider": lambda: WideConv(3, 7, width=11),
    "WideConv projected": lambda: WideConv(3, 7, width=11, projection=True),
    "OnlineConv": lambda: OnlineConv(5),
    "OnlineConv wider": lambda: OnlineConv(3, 7),
    "Scaled": lambda: Scaled(EdgeConv(5), 0.1),
}


M = TypeVar("M", bound=nn.Module)


def randomised(network: M) -> M:
    torch.manual_seed(0)
    for parameter in network.double().parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("name", REP_CONVS)
def test_one_convolution_is_the_sum_of_the_branches(name: str) -> None:
    block = randomised(REP_CONVS[name]())
    kernel, _ = block.kernel_and_bias()
    x = torch.rand(2, kernel.shape[1], 9, 11, dtype=torch.float64)
    expected = block.branches(x)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(block.merged()(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", REP_CONVS)
def test_every_branch_is_trained_by_the_online_merge(name: str) -> None:
    block = randomised(REP_CONVS[name]())
    kernel, _ = block.kernel_and_bias()
    x = torch.rand(2, kernel.shape[1], 9, 11, dtype=torch.float64)

    def gradients(forward: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor | None]:
        block.zero_grad()
        forward(x).square().mean().backward()
        return [None if parameter.grad is None else parameter.grad.clone() for parameter in block.parameters()]

    for online, branches in zip(gradients(block), gradients(block.branches), strict=True):
        assert online is not None
        assert branches is not None
        torch.testing.assert_close(online, branches, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "block", [ConvBN(5, 7, 3), ConvBN(5, 7, 1, stride=2), ConvBNConv(5, 7)], ids=lambda b: str(b)[:10]
)
def test_batch_normalisation_is_folded(block: ConvBN | ConvBNConv) -> None:
    randomised(block)
    x = torch.rand(4, 5, 8, 10, dtype=torch.float64)
    for _ in range(5):
        block.train()(x)  # moves the running statistics
    torch.testing.assert_close(block.merged()(x), block.eval()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.SiLU()])
def test_a_chain_passes_the_frame_on(activation: nn.Module) -> None:
    torch.manual_seed(0)
    chain = [nn.Conv2d(3, 9, 3, padding=1, bias=False), *(RepVGGConv(9, bias=False) for _ in range(3))]
    before = chain[1](x := torch.rand(1, 9, 8, 8))
    carry_frame(chain)
    assert torch.equal(chain[1](x)[:, 6:], before[:, 6:]), "the other channels are as they were"
    frame = features = torch.rand(2, 3, 12, 10)
    for layer in chain:
        features = activation(layer(features))
    assert torch.allclose(features[:, :3] - features[:, 3:6], frame, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 3])
def test_polyphase_upsampling_is_bicubic_up_to_the_border(scale: int) -> None:
    frames = torch.rand(2, 3, 19, 28)
    torch.testing.assert_close(PolyphaseUpsample(scale)(frames), BicubicUpsample(scale)(frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [2, 3])
def test_repeated_pixels_are_nearest_neighbours(scale: int) -> None:
    x = torch.rand(1, 3, 5, 7)
    torch.testing.assert_close(F.pixel_shuffle(repeat_pixels(x, scale), scale), F.interpolate(x, scale_factor=scale))


def test_padding_repeats_the_last_row_and_column() -> None:
    x = torch.rand(1, 3, 5, 7)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 3, 8, 8)
    torch.testing.assert_close(padded[..., :5, 7], x[..., 6])
    torch.testing.assert_close(padded[..., 7, :7], x[..., 4, :])


def test_haar_bands_give_the_frame_back() -> None:
    x = torch.rand(2, 3, 8, 10)
    bands = [Subband(3, band)(x) for band in range(4)]
    torch.testing.assert_close(sum(InverseSubband(3, i)(band) for i, band in enumerate(bands)), x)
    together = HaarTransform(3)(x)
    torch.testing.assert_close(together, torch.stack(bands, dim=2).flatten(1, 2))


def test_fourier_unit_sees_the_whole_frame() -> None:
    unit = FourierUnit(4).eval()
    torch.manual_seed(0)
    quiet = torch.rand(1, 4, 12, 16)
    loud = quiet.clone()
    loud[0, 0, 0, 0] += 1
    changed = (unit(loud) - unit(quiet)).abs() > 1e-9
    assert changed.float().mean() > 0.9


def test_assembled_convolution_is_each_frames_own() -> None:
    conv = AssembledConv(3, 5).double()
    x = torch.rand(2, 3, 6, 7, dtype=torch.float64)
    coefficients = torch.randn(2, 3, 5, dtype=torch.float64)
    y = conv(x, coefficients)
    for frame in range(2):
        for out in range(3):
            kernel = sum(coefficients[frame, out, e] * conv.basis[e, out] for e in range(5))
            assert isinstance(kernel, torch.Tensor)
            expected = F.conv2d(x[frame : frame + 1], kernel[None], padding=1)[0, 0]
            torch.testing.assert_close(y[frame, out], expected, rtol=0, atol=1e-12)


def test_partial_convolution_passes_the_rest() -> None:
    x = torch.rand(1, 8, 6, 7)
    y = PartialConv(8)(x)
    torch.testing.assert_close(y[:, 2:], x[:, 2:])
    assert not torch.allclose(y[:, :2], x[:, :2])


def test_spatial_attention_on_a_map_smaller_than_its_pool() -> None:
    attention = SpatialAttention(8, 4, convs=1, pool=(11, 7))
    x = torch.rand(1, 8, 7, 30)
    y = attention(x)
    assert y.shape == x.shape
    assert bool(((y >= 0) & (y <= x)).all()), "a mask lies between 0 and 1"
