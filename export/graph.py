"""The graph that is served: frames in, frames out, everything between fused into it.

Casts, colours, scaling, layout and clamping live in the graph: the engine fuses them, and nobody else touches a pixel.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.blocks.resample import BicubicUpsample, PolyphaseUpsample
from models.reparam import reparameterise
from models.spec import ModelSpec

INPUT_NAME = "lr_frames"
COLOURS_NAME = "colours"
OUTPUT_NAME = "sr_frames"

PixelFormat = Literal["rgb24", "nv12"]


def input_shapes(pixel_format: PixelFormat, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """The inputs of a graph in their order, each with the shape that one frame of height x width has in it."""
    if pixel_format == "rgb24":
        return {INPUT_NAME: (height, width, 3)}
    return {INPUT_NAME: (height * 3 // 2, width), COLOURS_NAME: (2, 3, 4)}


class ServedGraph(nn.Module):
    """A deployed network between uint8 frames; a subclass for each pixel format."""

    pixel_format: PixelFormat

    def __init__(self, network: nn.Module, input_range: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.input_range = input_range
        self.dtype = dtype

    def upscale(self, rgb: Tensor) -> Tensor:
        """RGB (N, 3, H, W) to RGB (N, 3, scale*H, scale*W), both in [0, 255] and of the graph's dtype, not rounded."""
        return (self.network(rgb * (self.input_range / 255)) * (255 / self.input_range)).clamp(0, 255)


class Rgb24Graph(ServedGraph):
    """RGB frames.

    Shapes: uint8 (N, H, W, 3) to uint8 (N, scale*H, scale*W, 3), any N, H and W.
    """

    pixel_format = "rgb24"

    def forward(self, lr_frames: Tensor) -> Tensor:
        """Upscale frames, clamped and rounded to 8 bits."""
        # TensorRT takes uint8 at its borders only: cast first, and last.
        sr = self.upscale(lr_frames.to(self.dtype).permute(0, 3, 1, 2))
        return sr.round().permute(0, 2, 3, 1).to(torch.uint8)


class Nv12Graph(ServedGraph):
    """NV12 frames: the H rows of Y, then H/2 rows of interleaved U and V, as one block of rows.

    Shapes: uint8 (N, H*3/2, W) and float32 (N, 2, 3, 4) to uint8 (N, scale*H*3/2, scale*W), any N, any even H and W.
    Rows that are no multiple of 3 and an odd W fail in a reshape: the caller has to refuse them.

    The second input is each frame's pair of colour maps (`upscale_client.colour`). Chroma lies where H.264 has it
    by default: on the even columns, and between the two rows. Colours are float32 in a half-precision graph too: on
    the way to RGB sums pass 512, where half precision has steps of half a grey level.
    """

    pixel_format = "nv12"
    spread: Tensor
    gather: Tensor

    def __init__(self, network: nn.Module, input_range: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network, input_range, dtype)
        # Upper and lower row of a 2x2 block are 1/4 away from its own chroma and 3/4 from that above or below; its left
        # column is on its own chroma and its right one halfway to the next.
        rows = torch.tensor([[0.25, 0.75, 0], [0, 0.75, 0.25]])
        columns = torch.tensor([[1, 0], [0.5, 0.5]])
        spread = torch.einsum("ai,bj->abij", rows, columns).reshape(4, 1, 3, 2).repeat(2, 1, 1, 1)
        gather = torch.outer(torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.5, 0.25])).repeat(3, 1, 1, 1)
        self.register_buffer("spread", spread, persistent=False)
        self.register_buffer("gather", gather, persistent=False)

    def forward(self, lr_frames: Tensor, colours: Tensor) -> Tensor:
        """Upscale frames, clamped and rounded to 8 bits."""
        # In thirds, so that no size has to be computed: two are luma, one is chroma.
        thirds = lr_frames.to(torch.float32).unflatten(1, (3, -1))
        luma = thirds[:, :2].flatten(1, 2).unsqueeze(1)
        chroma = thirds[:, 2].unflatten(2, (-1, 2)).permute(0, 3, 1, 2)
        phases = F.conv2d(F.pad(chroma, (0, 1, 1, 1), mode="replicate"), self.spread, groups=2)
        yuv = torch.cat([luma, F.pixel_shuffle(phases, 2)], dim=1)
        rgb = _mapped(yuv, colours[:, 0]).clamp(0, 255)
        sr = self.upscale(rgb.to(self.dtype)).to(torch.float32)
        luma = _mapped(sr, colours[:, 1, :1]).squeeze(1)
        # Chroma is a weighted mean of neighbours: taking it before the map is the same, and a quarter of the work.
        coarse = F.conv2d(F.pad(sr, (1, 0, 0, 0), mode="replicate"), self.gather, stride=2, groups=3)
        chroma = _mapped(coarse, colours[:, 1, 1:]).permute(0, 2, 3, 1).flatten(2)
        return torch.cat([luma, chroma], dim=1).clamp(0, 255).round().to(torch.uint8)


def reference_graph(spec: ModelSpec, trained: nn.Module, pixel_format: PixelFormat = "rgb24") -> ServedGraph:
    """The trained network between uint8 frames just as PyTorch has it: what an exported model is held against."""
    return _GRAPHS[pixel_format](trained, spec.input_range).eval()


def deployed_graph(
    spec: ModelSpec,
    trained: nn.Module,
    dtype: torch.dtype = torch.float32,
    pixel_format: PixelFormat = "rgb24",
) -> ServedGraph:
    """The graph to export: re-parameterised, with resampling in the form engines run fastest."""
    network = _with_polyphase_upsampling(reparameterise(trained))
    return _GRAPHS[pixel_format](network, spec.input_range, dtype).eval()


_GRAPHS: dict[PixelFormat, type[ServedGraph]] = {"rgb24": Rgb24Graph, "nv12": Nv12Graph}


def _mapped(pixels: Tensor, maps: Tensor) -> Tensor:
    """Pixels (N, 3, H, W) through one affine map per frame, (N, C, 4): (N, C, H, W)."""
    # One product: OpenVINO runs it faster than a sum of three broadcast ones.
    mapped = maps[..., :3] @ pixels.flatten(2) + maps[..., 3:]
    return mapped.unflatten(2, pixels.shape[2:])


def _with_polyphase_upsampling(network: nn.Module) -> nn.Module:
    """`network` with interpolation as convolution: OpenVINO takes a third less time for the whole of RUNet x2."""
    if isinstance(network, BicubicUpsample):
        return PolyphaseUpsample(network.scale)
    for name, child in network.named_children():
        setattr(network, name, _with_polyphase_upsampling(child))
    return network
