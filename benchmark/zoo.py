"""The zoo at a glance: docs/models.md and its chart, written from the specs, the counts and the report's rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmark.charts import scatter
from benchmark.complexity import Row, rows
from models.registry import get, specs
from models.spec import ModelSpec
from models.weights import PROFILES, weights_path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"
_BUDGETS_MS = {"60 frames a second": 1000 / 60, "30 frames a second": 1000 / 30}
_LAST_RESORT = "bicubic"


def command(
    page: Annotated[Path, typer.Option(help="The page to write; its chart goes beside it.")] = PAGE,
) -> None:
    """Write docs/models.md: every network, what it costs, what the report says of it, and how to choose."""
    page.write_text(markdown())
    _draw(page.with_suffix(".svg"))
    Console().print(f"written: {page}, {page.with_suffix('.svg')}")


def markdown() -> str:
    """The page."""
    counted = {(row.model, row.scale): row for row in rows()}
    return "\n".join([_INTRODUCTION, *_table(counted), *_choice(counted), *_verdicts(counted)]) + "\n"


_INTRODUCTION = """\
# The networks

Written by `python -m benchmark models`. The methods are those of the NTIRE 2023 Real-Time 4K Super-Resolution
report: 24 teams, the RT4KSR baseline, bicubic. Each is one file in [models/](../models/), whose docstring tells the
idea and what in it is interpretation. Parameters and multiply-accumulates (MACs) are counted here on the deployed
form, for one frame to 4K. Gain (PSNR over RGB against bicubic), milliseconds (RTX 3090, fp16) and score are the
report's, of weights that were not published with it; `weights` names the profiles trained here, and their model cards
in [weights/](../weights/) tell what ours reach.

![The report's gain over its runtime](models.svg)
"""

_HOW_TO_CHOOSE = """\
## How to choose

What counts is quality inside your budget. No network on the lists below is both slower and worse than another, by the
report's runtime and gain. The gateway adds its own time, so leave half of the budget free."""

_CPU = """
A CPU ranks them otherwise: `python -m benchmark runtime` measures yours, and [benchmarks/](benchmarks/) holds what was
measured."""


def _table(counted: dict[tuple[str, int], Row]) -> Iterator[str]:
    for scale, source in ((2, "1080p"), (3, "720p")):
        yield f"## x{scale}: {source} to 4K"
        yield ""
        yield "| model | team | section | idea | params M | GMAC | gain dB | ms | score | weights |"
        yield "|---|---|---|---|---|---|---|---|---|---|"
        for spec in sorted(_of(scale), key=lambda spec: spec.reported[scale].runtime_ms):
            row, reported = counted[spec.name, scale], spec.reported[scale]
            yield (
                f"| [`{spec.name}`](../models/{spec.name}.py) | {spec.team} | {spec.section} | {spec.idea} "
                f"| {row.params / 1e6:.4f} | {row.macs / 1e9:.2f} | {_gain(spec, scale):+.2f} "
                f"| {reported.runtime_ms:g} | {'' if reported.score is None else f'{reported.score:.2f}'} "
                f"| {_weights(spec, scale)} |"
            )
        yield ""


def _choice(counted: dict[tuple[str, int], Row]) -> Iterator[str]:
    yield _HOW_TO_CHOOSE
    for scale in (2, 3):
        front = list(_front(scale))
        yield ""
        yield f"**x{scale}**, fastest first: " + ", ".join(
            f"`{spec.name}` ({spec.reported[scale].runtime_ms:g} ms, {_gain(spec, scale):+.2f} dB)" for spec in front
        )
        yield ""
        for budget, milliseconds in _BUDGETS_MS.items():
            fits = [spec for spec in front if spec.reported[scale].runtime_ms <= milliseconds / 2]
            yield f"- {budget}, half of them for the network: `{fits[-1].name}`"
        offline = max(_of(scale), key=lambda spec: _gain(spec, scale))
        yield f"- no budget: `{offline.name}`, {counted[offline.name, scale].macs / 1e9:.0f} GMAC a frame"
    yield _CPU
    yield ""


def _verdicts(counted: dict[tuple[str, int], Row]) -> Iterator[str]:
    judged = [row for row in counted.values() if row.verdict != "reference"]
    exact = sum(row.verdict == "exact" for row in judged)
    yield "## Against the report's numbers"
    yield ""
    yield f"Of {len(judged)} rows {exact} meet the printed parameters and MACs to the last digit, counted as the"
    yield "organisers do (`python -m benchmark complexity`). The others, and the rows that print another configuration:"
    yield ""
    yield "| model | scale | verdict | params M | report | G, organisers' count | report | note |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in judged:
        if row.note:
            yield (
                f"| `{row.model}` | x{row.scale} | {row.verdict} | {row.params / 1e6:.4f} | {row.report_params_m:g} "
                f"| {row.macs_official / 1e9:.3f} | {row.report_gmacs:g} | {row.note} |"
            )


def _of(scale: int) -> list[ModelSpec]:
    return [spec for spec in specs().values() if scale in spec.scales]


def _gain(spec: ModelSpec, scale: int) -> float:
    return spec.reported[scale].psnr_rgb - get(_LAST_RESORT).reported[scale].psnr_rgb


def _front(scale: int) -> Iterator[ModelSpec]:
    """The networks that no other one beats in both runtime and gain, fastest first."""
    best = float("-inf")
    for spec in sorted(_of(scale), key=lambda spec: spec.reported[scale].runtime_ms):
        if _gain(spec, scale) > best:
            best = _gain(spec, scale)
            yield spec


def _weights(spec: ModelSpec, scale: int) -> str:
    if not spec.learned:
        return "none needed"
    return ", ".join(profile for profile in PROFILES if weights_path(spec, scale, profile).exists()) or "-"


def _draw(path: Path) -> None:
    points = {
        f"x{scale}": [(spec.name, spec.reported[scale].runtime_ms, _gain(spec, scale)) for spec in _of(scale)]
        for scale in (2, 3)
    }
    scatter(
        points,
        path,
        title="Table 1 of the report",
        x="milliseconds per frame, RTX 3090, fp16",
        y="gain over bicubic, dB PSNR (RGB)",
    )
