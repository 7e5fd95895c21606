"""Charts for the documentation, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import Bbox

_COLOURS = ("#2a6fdb", "#d1495b")
_LINE_COLOURS = (*_COLOURS, "#3c9d5d", "#e8a33d", "#7a5195")
_BAR_COLOURS = ("#2a6fdb", "#7a5195", "#8a8f98")
_SPAN_COLOURS = ("#3c9d5d", "#7a5195", "#d1495b", "#e8a33d")
# Text stays text, and the same numbers give the same file.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "upscale", "font.size": 9}
_ASIDE = (4, 0)
_LABEL_PLACES = [
    ((across, up), side)
    for distance in (1, 2, 3)
    for up in (3 * distance, -3 * distance - 6, -3)
    for across, side in ((4, "left"), (-4, "right"))
]
"""Of a point's label: its offset in points, and its side that is at the point. The first that is free is taken."""


def scatter(
    groups: Mapping[str, Sequence[tuple[str, float, float]]], path: Path, *, title: str, x: str, y: str
) -> None:
    """Draw named points (name, x, y), one panel for each group, x on a logarithmic axis."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6 * len(groups), 5.5), layout="constrained")
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, (name, points), colour in zip(panels, groups.items(), _COLOURS, strict=False):
            axes.scatter([p[1] for p in points], [p[2] for p in points], s=22, color=colour)
            axes.set_xscale("log")
            axes.margins(x=0.15)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set(title=name, xlabel=x)
            axes.grid(visible=True, which="both", linewidth=0.3, alpha=0.6)
        panels[0].set_ylabel(y)
        figure.suptitle(title)
        # Where the panels end up decides which labels lie on one another.
        figure.draw_without_rendering()
        for axes, points in zip(panels, groups.values(), strict=True):
            _label(axes, points)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _label(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write every point's name beside it, where no point and no other name is, if there is such a place."""
    dots = axes.transData.transform([point[1:] for point in points])
    taken = [Bbox.from_extents(across - 3, up - 3, across + 3, up + 3) for across, up in dots]
    for name, across, up in sorted(points, key=lambda point: point[1]):
        tried: list[tuple[float, Annotation, Bbox]] = []
        for offset, side in _LABEL_PLACES:
            label = axes.annotate(name, (across, up), offset, textcoords="offset points", fontsize=7, ha=side)
            box = label.get_window_extent()
            tried.append((sum(_shared(box, other) for other in taken), label, box))
            if not tried[-1][0]:
                break
        best = min(range(len(tried)), key=lambda number: tried[number][0])
        for number, (_, label, box) in enumerate(tried):
            if number == best:
                taken.append(box)
            else:
                label.remove()


def _shared(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height


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


def lines(series: Mapping[str, Sequence[tuple[float, float]]], path: Path, *, title: str, x: str, y: str) -> None:
    """Draw named lines of points (x, y) in one panel; the last is dashed: what the others are held against."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(series.items()):
            last = number == len(series) - 1
            colour = "#444444" if last else _LINE_COLOURS[number]
            style, mark = ("--", "") if last else ("-", "o")
            axes.plot(*zip(*points, strict=True), style, marker=mark, markersize=4, color=colour, label=name)
        axes.set(title=title, xlabel=x, ylabel=y)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, linewidth=0.3, alpha=0.6)
        axes.legend()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def over_time(series: Mapping[str, Sequence[float]], times: Sequence[float], path: Path, *, title: str, x: str) -> None:
    """Draw each of the named series in a panel of its own, one below the other, from zero, on one time axis."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 1 + 2 * len(series)), layout="constrained")
        panels = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, values), colour in zip(panels, series.items(), _LINE_COLOURS, strict=False):
            axes.plot(times, values, color=colour, lw=1)
            axes.set_title(name, loc="left")
            axes.set_ylim(0, 1.1 * max((value for value in values if value == value), default=1))
            axes.grid(visible=True, linewidth=0.3, alpha=0.6)
        panels[-1].set_xlabel(x)
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


class Bar(NamedTuple):
    """Something that took time on one of the rows above."""

    row: str
    begin: float
    end: float
    group: str
    label: str


class Span(NamedTuple):
    """Something that waited: from `begin` to `end`, and was done at `done`, or never."""

    begin: float
    end: float
    done: float | None
    group: str


def timeline(
    panels: Mapping[str, tuple[Sequence[Bar], Sequence[Span]]],
    path: Path,
    *,
    title: str,
    x: str,
    y: str,
    bars: Sequence[str],
    spans: Sequence[str],
) -> None:
    """Draw bars in rows (a Gantt chart) above what waited for them, one column for each panel, on one time axis.

    What was done has a dot, what never was a cross. `bars` and `spans` are the groups, in the order of their colours.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7 * len(panels), 8), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=(1, 3))
        colours = dict(zip(bars, _BAR_COLOURS, strict=False))
        shades = dict(zip(spans, _SPAN_COLOURS, strict=False))
        rows = sorted({bar.row for drawn, _ in panels.values() for bar in drawn})
        for (above, below), (name, (drawn, waited)) in zip(grid.T, panels.items(), strict=True):
            for bar in drawn:
                place = rows.index(bar.row)
                above.barh(place, bar.end - bar.begin, left=bar.begin, color=colours[bar.group], edgecolor="white")
                middle = ((bar.begin + bar.end) / 2, place)
                above.annotate(bar.label, middle, ha="center", va="center", color="white", fontsize=7)
            above.set_yticks(range(len(rows)), rows)
            above.set_title(name)
            tints = [shades[span.group] for span in waited]
            below.hlines(range(len(waited)), [s.begin for s in waited], [s.end for s in waited], color=tints, lw=1)
            for done, mark in ((True, "o"), (False, "x")):
                chosen = [number for number, span in enumerate(waited) if (span.done is not None) is done]
                moments = [waited[number].done if done else waited[number].begin for number in chosen]
                below.scatter(moments, chosen, s=12, marker=mark, color=[tints[n] for n in chosen], zorder=3)
            below.set_xlabel(x)
            for axes in (above, below):
                axes.invert_yaxis()
                axes.grid(visible=True, axis="x", linewidth=0.3, alpha=0.6)
                axes.set_axisbelow(True)
        grid[1][0].set_ylabel(y)
        handles = [Patch(color=colour, label=group) for group, colour in {**colours, **shades}.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        figure.suptitle(title)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
