"""Charts for the documentation, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_COLOURS = ("#2a6fdb", "#d1495b")
_ABOVE, _BELOW = (4, 3), (4, -9)


def scatter(
    groups: Mapping[str, Sequence[tuple[str, float, float]]], path: Path, *, title: str, x: str, y: str
) -> None:
    """Draw named points (name, x, y), one panel for each group, x on a logarithmic axis."""
    # Text stays text, and the same numbers give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "upscale", "font.size": 9}):
        figure = Figure(figsize=(6 * len(groups), 5.5), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (name, points), colour in zip(panels, groups.items(), _COLOURS, strict=False):
            axes.scatter([p[1] for p in points], [p[2] for p in points], s=22, color=colour)
            # Neighbours' labels take turns, so that few lie on one another.
            for number, (label, across, up) in enumerate(sorted(points, key=lambda point: point[1])):
                offset = _BELOW if number % 2 else _ABOVE
                axes.annotate(label, (across, up), offset, textcoords="offset points", fontsize=7)
            axes.set_xscale("log")
            axes.margins(x=0.15)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set(title=name, xlabel=x)
            axes.grid(visible=True, which="both", linewidth=0.3, alpha=0.6)
        panels[0].set_ylabel(y)
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
