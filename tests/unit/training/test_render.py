"""Rendered pictures, by the real POV-Ray of Debian's package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import render

SMALL = replace(render.TRAIN[0], width=96, height=54)
BROKEN = render.Scene("nothing/here.pov")


def test_missing_scenes_are_rendered_once_and_failures_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "SCENES", {"train": (SMALL, BROKEN)})
    monkeypatch.chdir(tmp_path)
    (failure,) = render.render(Path())  # a folder that is named from where one stands, as the command's default is
    assert failure.startswith("nothing/here.pov: ")
    (picture,) = (tmp_path / "train" / "povray-examples").iterdir()
    with Image.open(picture) as image:
        assert image.size == (96, 54)
        assert np.asarray(image.convert("RGB")).std() > 5
    assert [path.name for path in tmp_path.iterdir()] == ["train"], "what was unpacked is gone"
    monkeypatch.setattr(render, "SCENES", {"train": (SMALL,)})
    monkeypatch.setenv("PATH", "")  # nothing can be fetched, and nothing need be
    assert render.render(tmp_path) == []


def test_no_scene_is_on_two_sides() -> None:
    train, test = ({scene.path for scene in render.SCENES[split]} for split in ("train", "test"))
    assert not train & test
