"""Charts that people can read."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib.figure
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from benchmark.charts import scatter


def test_no_name_lies_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def kept(figure: Figure, *args: object, **options: object) -> None:
        drawn.append(figure)
        save(figure, *args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", kept)
    crowded = [(f"a_long_name_{number}", 1 + 0.02 * number, 0.5 + 0.001 * number) for number in range(6)]
    scatter({"x2": [*crowded, ("far_away", 100.0, 1.0)]}, tmp_path / "chart.svg", title="", x="", y="")
    (figure,) = drawn
    labels = [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]
    assert sorted(label.get_text() for label in labels) == [*(name for name, _, _ in crowded), "far_away"]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
