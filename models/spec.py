"""What the rest of the project may know about a network without building it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from models.recipe import Recipe


@dataclass(frozen=True)
class PrintedConfiguration:
    """What the report's parameters and MACs of a row stand for, where it is not the network of that row at its size."""

    build: Callable[[], nn.Module]
    height: int
    """Of the input tensor, in pixels."""
    width: int
    description: str
    """A noun phrase, e.g. "the x3 network at 1280x720"."""


@dataclass(frozen=True)
class Reported:
    """One row of the report's Table 1, as printed."""

    params_m: float | None
    """Parameters of the deployed form, in millions."""
    gmacs: float | None
    """The report's "FLOPs" column in G: multiply-accumulates of 1080p (x2) or 720p (x3) to 4K."""
    psnr_rgb: float
    """PSNR over RGB on the report's test set, in dB."""
    psnr_y: float
    """PSNR of the luma on the report's test set, in dB."""
    ssim: float
    runtime_ms: float
    """Milliseconds per frame on an RTX 3090 in half precision."""
    score: float | None = None
    printed: PrintedConfiguration | None = None
    """Where parameters and MACs are another configuration's."""
    note: str = ""
    """One sentence on why our count differs from the row, where it does."""


@dataclass(frozen=True)
class ModelSpec:
    """A method of the report.

    `build(scale)` returns the training form: a module that takes float RGB of shape (N, 3, H, W) in
    [0, `input_range`], any H and W, and returns (N, 3, scale*H, scale*W) in the same range, not clamped.
    """

    name: str
    """The slug used on command lines, in file names and in requests."""
    title: str
    team: str
    section: str
    """Section of the report that describes the method."""
    idea: str
    """What sets the method apart, in a few words."""
    build: Callable[[int], nn.Module]
    reported: Mapping[int, Reported] = field(default_factory=dict[int, Reported])
    """The report's rows by scale; its keys are the scales the method exists for."""
    input_range: float = 1.0
    recipe: Recipe = field(default_factory=Recipe)
    """How the method is trained unless told otherwise."""
    learned: bool = True
    """Whether there is anything to train; without it there are no weights either."""
    batchable: bool = True
    """Whether an exported graph takes several frames at once."""

    def real_time(self, scale: int) -> bool:
        """Whether the report's runtime leaves 30 frames a second in reach."""
        return self.reported[scale].runtime_ms <= 1000 / 30

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales the method exists for, ascending."""
        return tuple(sorted(self.reported))
