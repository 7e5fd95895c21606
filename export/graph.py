"""The graph that is served: frames in, frames out, everything between fused into it.

Casts, scaling, layout and clamping live in the graph, so the engine fuses them and nobody else touches a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.blocks.resample import BicubicUpsample, PolyphaseUpsample
from models.reparam import reparameterise
from models.spec import ModelSpec

INPUT_NAME = "lr_frames"
OUTPUT_NAME = "sr_frames"


class ServedGraph(nn.Module):
    """A deployed network between uint8 frames.

    Shapes: uint8 RGB (N, H, W, 3) to uint8 RGB (N, scale*H, scale*W, 3), any N, H and W.
    """

    def __init__(self, network: nn.Module, input_range: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.input_range = input_range
        self.dtype = dtype

    def forward(self, lr_frames: Tensor) -> Tensor:
        """Upscale frames, clamped and rounded to 8 bits."""
        # TensorRT takes uint8 at its borders only: cast first, and last.
        x = lr_frames.to(self.dtype).permute(0, 3, 1, 2) * (self.input_range / 255)
        y = self.network(x) * (255 / self.input_range)
        return y.clamp(0, 255).round().permute(0, 2, 3, 1).to(torch.uint8)


def reference_graph(spec: ModelSpec, trained: nn.Module) -> ServedGraph:
    """The trained network between uint8 frames just as PyTorch has it: what an exported model is held against."""
    return ServedGraph(trained, spec.input_range).eval()


def deployed_graph(spec: ModelSpec, trained: nn.Module, dtype: torch.dtype = torch.float32) -> ServedGraph:
    """The graph to export: re-parameterised, with resampling in the form engines run fastest."""
    network = _with_polyphase_upsampling(reparameterise(trained))
    return ServedGraph(network, spec.input_range, dtype).eval()


def _with_polyphase_upsampling(network: nn.Module) -> nn.Module:
    """`network` with interpolation as convolution: OpenVINO takes a third less time for the whole of RUNet x2."""
    if isinstance(network, BicubicUpsample):
        return PolyphaseUpsample(network.scale)
    for name, child in network.named_children():
        setattr(network, name, _with_polyphase_upsampling(child))
    return network
