"""What a way is asked for: a frame in 4K, of a network or of an identity model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it brings torch in, which no client needs
    from models.weights import Profile

WIDTH, HEIGHT = 1920, 1080
SCALE = 2
PROFILE: Profile = "clean"
MARK_BYTES = 64
"""An identity answer begins with so many of its frame's bytes."""


@dataclass(frozen=True)
class Task:
    """Frames of one size, enlarged by one model."""

    model: str
    scale: int = SCALE
    profile: Profile = PROFILE
    width: int = WIDTH
    height: int = HEIGHT

    def variant(self, pixel_format: str = "rgb24") -> str:
        """The model's name in Triton."""
        return f"{self.model}_x{self.scale}_{self.profile}" + ("" if pixel_format == "rgb24" else f"_{pixel_format}")


IDENTITY, RUNET = Task("identity"), Task("runet")
