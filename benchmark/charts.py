"""Charts for the documentation, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_COLOURS = ("#2a6fdb", "#d1495b")
# Text stays text, and the same numbers give the same file.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "upscale", "font.size": 9}
_ABOVE, _BELOW, _ASIDE = (4, 3), (4, -9), (4, 0)


def scatter(
    groups: Mapping[str, Sequence[tuple[str, float, float]]], path: Path, *, title: str, x: str, y: str
) -> None:
    """Draw named points (name, x, y), one panel for each group, x on a logarithmic axis."""
    with mpl.rc_context(_STYLE):
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


def bars(groups: Mapping[str, Sequence[tuple[str, float, float]]], path: Path, *, title: str, x: str) -> None:
    """Draw named bars (name, length, end of the whisker), the first on top, one panel for each group."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6 * len(groups), 4), layout="constrained")
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (name, rows), colour in zip(panels, groups.items(), _COLOURS, strict=False):
            whiskers = [[0.0] * len(rows), [max(0.0, end - length) for _, length, end in rows]]
            axes.barh([row[0] for row in rows], [row[1] for row in rows], color=colour)
            axes.errorbar([row[1] for row in rows], range(len(rows)), xerr=whiskers, fmt="none", ecolor="#444444")
            for number, (_, length, end) in enumerate(rows):
                beyond = (max(length, end), number)
                axes.annotate(f"{length:.1f}", beyond, _ASIDE, textcoords="offset points", va="center")
            axes.invert_yaxis()
            axes.margins(x=0.2)
            axes.set(title=name, xlabel=x)
            axes.grid(visible=True, axis="x", linewidth=0.3, alpha=0.6)
            axes.set_axisbelow(True)
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
