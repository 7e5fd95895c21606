"""NV12 graphs against swscale, FFmpeg's own conversion.

The reference runs with `flags=area+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact` and `chroma_loc=left`: the
same arithmetic on every CPU, chroma computed for and from every pixel, and the filter that spreads chroma linearly and
gathers it from the two rows beside it, as the graph does (`bilinear` gathers from four). What is left are roundings: at
most one grey level. Those of full-range chroma are no accident: swscale's lies half a grey level beside the formula's
on average.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.filter import Graph
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph import Nv12Graph, reference_graph
from models.registry import get
from models.weights import load
from training.metrics import psnr
from upscale_client.colour import Matrix, colour_maps

Pixels = NDArray[np.uint8]
FLAGS = "area+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
KINDS: list[tuple[Matrix, bool]] = [("bt709", False), ("bt709", True), ("bt601", False), ("bt601", True)]
SPEC = get("runet")

kinds = pytest.mark.parametrize(("matrix", "full_range"), KINDS)


class Watched(nn.Module):
    """A network that keeps what it is given, and gives back the same or what it is told."""

    seen: Tensor

    def __init__(self, answer: Tensor | None = None) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x if self.answer is None else self.answer


def swscale(
    frame: Pixels,
    source: str,
    target: str,
    matrix: Matrix,
    full_range: bool,
    *,
    loc: str = "left",
    flags: str = FLAGS,
) -> Pixels:
    """A frame in another pixel format: RGB (H, W, 3) or NV12 (H*3/2, W), by FFmpeg's scale filter."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=source)
    picture.pts, picture.time_base = 0, Fraction(1, 25)
    yuv = "in" if source == "nv12" else "out"
    levels = "pc" if full_range else "tv"
    graph: Any = Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
        ),
        graph.add("scale", f"flags={flags}:{yuv}_color_matrix={matrix}:{yuv}_range={levels}:{yuv}_chroma_loc={loc}"),
        graph.add("format", f"pix_fmts={target}"),
        graph.add("buffersink"),
    ).configure()
    graph.push(picture)
    return graph.pull().to_ndarray()


def colours(matrix: Matrix, full_range: bool) -> Tensor:
    return torch.tensor(colour_maps(matrix, full_range))[None]


def to_rgb(nv12: Pixels, matrix: Matrix, full_range: bool) -> Pixels:
    """What the network of an NV12 graph is given."""
    network = Watched()
    Nv12Graph(network, 255.0)(torch.from_numpy(nv12)[None], colours(matrix, full_range))
    return network.seen[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def to_nv12(rgb: Pixels, matrix: Matrix, full_range: bool) -> Pixels:
    """What an NV12 graph makes of its network's answer."""
    network = Watched(torch.tensor(rgb, dtype=torch.float32).permute(2, 0, 1)[None])
    nothing = torch.zeros(1, 24, 16, dtype=torch.uint8)
    return Nv12Graph(network, 255.0)(nothing, colours(matrix, full_range))[0].numpy()


def difference(a: Pixels, b: Pixels) -> NDArray[np.int16]:
    assert a.shape == b.shape
    return np.abs(a.astype(np.int16) - b)


@pytest.fixture(scope="module")
def photograph(lr_1080p: Pixels) -> Pixels:
    """A detail of 960x540, feathers and twigs."""
    return lr_1080p[200:740, 500:1460]


@kinds
def test_the_network_is_given_swscales_rgb(photograph: Pixels, matrix: Matrix, full_range: bool) -> None:
    nv12 = swscale(photograph, "rgb24", "nv12", matrix, full_range)
    off = difference(to_rgb(nv12, matrix, full_range), swscale(nv12, "nv12", "rgb24", matrix, full_range))
    assert off.max() <= 1
    assert off.mean() < 0.02


@kinds
def test_its_answer_becomes_swscales_nv12(photograph: Pixels, matrix: Matrix, full_range: bool) -> None:
    height = len(photograph)
    off = difference(to_nv12(photograph, matrix, full_range), swscale(photograph, "rgb24", "nv12", matrix, full_range))
    assert off.max() <= 1
    assert off[:height].mean() < 0.02
    assert off[height:].mean() < (0.6 if full_range else 0.02)


def test_the_reference_tells_one_conversion_from_another(photograph: Pixels) -> None:
    """Otherwise the two tests above would prove nothing."""
    nv12 = swscale(photograph, "rgb24", "nv12", "bt709", False)
    ours = to_rgb(nv12, "bt709", False)
    for other in (
        swscale(nv12, "nv12", "rgb24", "bt709", False, loc="center"),
        swscale(nv12, "nv12", "rgb24", "bt709", False, loc="topleft"),
        swscale(nv12, "nv12", "rgb24", "bt709", False, flags="area+accurate_rnd+bitexact"),
        swscale(nv12, "nv12", "rgb24", "bt601", False),
        swscale(nv12, "nv12", "rgb24", "bt709", True),
    ):
        assert difference(ours, other).max() > 2


@kinds
def test_the_maps_undo_each_other_and_keep_the_ends_of_the_scale(matrix: Matrix, full_range: bool) -> None:
    to_rgb, to_yuv = (np.vstack([each, [0, 0, 0, 1]]) for each in colour_maps(matrix, full_range).astype(np.float64))
    np.testing.assert_allclose(to_rgb @ to_yuv, np.eye(4), atol=1e-4)
    black, white = (0, 255) if full_range else (16, 235)
    np.testing.assert_allclose(to_rgb @ [black, 128, 128, 1], [0, 0, 0, 1], atol=1e-4)
    np.testing.assert_allclose(to_rgb @ [white, 128, 128, 1], [255, 255, 255, 1], atol=1e-4)


@kinds
def test_runet_gives_nv12_the_picture_it_gives_rgb(photograph: Pixels, matrix: Matrix, full_range: bool) -> None:
    """Both graphs are given one NV12 frame, that for RGB by way of swscale.

    Its answer as NV12 is the other's but for roundings, of which the NV12 graph has two fewer. As RGB the answers
    also differ by what 4:2:0 keeps of an answer's colours.
    """
    network = load(SPEC, 2, "clean")
    nv12 = swscale(photograph[:270, :480], "rgb24", "nv12", matrix, full_range)
    rgb = swscale(nv12, "nv12", "rgb24", matrix, full_range)
    with torch.inference_mode():
        answer = reference_graph(SPEC, network, "nv12")(torch.from_numpy(nv12)[None], colours(matrix, full_range))
        by_rgb = reference_graph(SPEC, network)(torch.from_numpy(rgb)[None])[0].numpy()
    by_nv12 = answer[0].numpy()
    off = difference(by_nv12, swscale(by_rgb, "rgb24", "nv12", matrix, full_range))
    assert off.max() <= 2
    assert np.mean(off > 1) < 1e-4
    assert psnr(swscale(by_nv12, "nv12", "rgb24", matrix, full_range), by_rgb) > 50


def test_frames_of_different_colours_share_a_batch(photograph: Pixels) -> None:
    nv12 = [swscale(photograph[:64, :96], "rgb24", "nv12", *kind) for kind in KINDS]
    graph = Nv12Graph(Watched(), 255.0)
    together = graph(torch.from_numpy(np.stack(nv12)), torch.cat([colours(*kind) for kind in KINDS]))
    for frame, kind, answer in zip(nv12, KINDS, together, strict=True):
        assert torch.equal(graph(torch.from_numpy(frame)[None], colours(*kind))[0], answer)


@pytest.mark.parametrize(("rows", "width"), [(72, 47), (71, 48), (73, 48)])
def test_an_odd_frame_is_refused(rows: int, width: int) -> None:
    with pytest.raises(RuntimeError, match=r"unflatten"):
        Nv12Graph(Watched(), 255.0)(torch.zeros(1, rows, width, dtype=torch.uint8), colours("bt709", False))
