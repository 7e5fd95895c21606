"""Kernels with their channels last: another layout in memory, the same network."""

from __future__ import annotations

import pytest
import torch

from models.layout import channels_last
from models.registry import get
from models.weights import untrained


@pytest.mark.parametrize("name", ["runet", "asconvsr"])  # AsConvSR's bases of kernels have five dimensions
def test_a_network_stays_what_it_is(name: str) -> None:
    network = untrained(get(name), 2)
    kernels = [tensor for tensor in network.parameters() if tensor.ndim == 4 and tensor[0, 0].numel() > 1]
    frame = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(frame)
        assert not any(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
        assert torch.allclose(channels_last(network)(frame), before, atol=1e-5)
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
