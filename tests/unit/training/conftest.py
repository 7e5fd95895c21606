"""Pictures to train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import detailed


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(detailed(seed)).save(folder / f"{seed}.png")
    return folder
