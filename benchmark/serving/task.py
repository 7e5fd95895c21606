"""What every way is asked for: a 1080p frame in 4K, of an identity model or of RUNet x2."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it brings torch in, which no client needs
    from models.weights import Profile

WIDTH, HEIGHT = 1920, 1080
SCALE = 2
PROFILE: Profile = "clean"
MARK_BYTES = 64
"""An identity answer begins with so many of its frame's bytes."""


def variant(model: str, pixel_format: str) -> str:
    """The name of a model in Triton."""
    return f"{model}_x{SCALE}_{PROFILE}" + ("" if pixel_format == "rgb24" else f"_{pixel_format}")


RUNET = variant("runet", "rgb24")
