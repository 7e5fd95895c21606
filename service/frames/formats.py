"""How a frame's pixels lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.settings import RGB_BYTES

PixelFormat = Literal["rgb24", "nv12"]
"""How a slot's pixels lie: RGB interleaved; or Y rows, then rows of U and V in turn, at half the size each way."""


@dataclass(frozen=True)
class FrameFormat:
    """What frames of one lane, and of one batch, have in common."""

    height: int
    width: int
    scale: int
    pixels: PixelFormat = "rgb24"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of the frame's bytes, as the network takes them."""
        return self._shape(1)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the answer's bytes."""
        return self._shape(self.scale)

    @property
    def input_bytes(self) -> int:
        """Bytes of the frame."""
        return self.height * self.width * RGB_BYTES // (1 if self.pixels == "rgb24" else 2)

    @property
    def output_bytes(self) -> int:
        """Bytes of the answer."""
        return self.input_bytes * self.scale**2

    @property
    def slot_bytes(self) -> int:
        """Bytes of both."""
        return self.input_bytes + self.output_bytes

    def _shape(self, scale: int) -> tuple[int, ...]:
        height, width = self.height * scale, self.width * scale
        return (height, width, RGB_BYTES) if self.pixels == "rgb24" else (height * 3 // 2, width)
