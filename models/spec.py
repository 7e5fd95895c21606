"""What the rest of the project may know about a network without building it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Reported:
    """One row of the report's Table 1, as printed."""

    params_m: float
    """Parameters of the deployed form, in millions."""
    gmacs: float
    """The report's "FLOPs" column in G: multiply-accumulates of 1080p (x2) or 720p (x3) to 4K."""
    psnr_rgb: float
    """PSNR over RGB on the report's test set, in dB."""
    psnr_y: float
    """PSNR of the luma on the report's test set, in dB."""
    ssim: float
    runtime_ms: float
    """Milliseconds per frame on an RTX 3090 in half precision."""
    score: float


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
    build: Callable[[int], nn.Module]
    reported: Mapping[int, Reported] = field(default_factory=dict[int, Reported])
    """The report's rows by scale; its keys are the scales the method exists for."""
    input_range: float = 1.0

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales the method exists for, ascending."""
        return tuple(sorted(self.reported))
