"""`python -m tests.fuzz`: what takes bytes from others is given bytes that nobody meant, two million times."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmark.runtime import Device, device_name
from benchmark.serving.report import write_page
from deploy.local import ROOT
from tests.fuzz.fuzzed import TARGETS, target
from tests.fuzz.run import fuzz

_MARKERS = ("<!-- begin: python -m tests.fuzz -->", "<!-- end: python -m tests.fuzz -->")
_RUNS = 2_400_000
_HEADERS = ("target", "what", "inputs", "inputs/s", "slowest, ms", "branches: seeds, then", "memory", "findings")


def command(
    runs: Annotated[int, typer.Option(min=1000, help="Inputs in all; half of them for the wire parser.")] = _RUNS,
    only: Annotated[str, typer.Option(help="Only this target, with all inputs.")] = "",
    seed: Annotated[int, typer.Option(help="Of the fuzzer's chance.")] = 1,
    reproduce: Annotated[
        Path | None, typer.Option(help="Give the target of --only this input, and nothing else.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="For logs, corpora and what broke a target.")] = ROOT / "out" / "fuzz",
    output: Annotated[Path, typer.Option(help="Where .json goes: a path without suffix.")] = ROOT
    / "docs"
    / "benchmarks"
    / "fuzz",
    page: Annotated[Path, typer.Option(help="The Markdown page whose table is written.")] = ROOT
    / "docs"
    / "reliability.md",
) -> None:
    """Fuzz the decoders, the wire parser and all else that takes bytes from others."""
    try:
        chosen = [target(only)] if only else TARGETS
    except KeyError:
        raise typer.BadParameter(
            f"there is no target {only!r}; there are: " + ", ".join(e.name for e in TARGETS)
        ) from None
    if reproduce:
        began = time.perf_counter()
        chosen[0].load().one(reproduce.read_bytes())
        print(f"nothing is wrong with it; it took {1000 * (time.perf_counter() - began):.1f} ms")
        return
    rows: list[dict[str, Any]] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        for each in chosen:
            inputs = runs if only else round(runs * each.share)
            task = progress.add_task(each.name, total=inputs)
            row = fuzz(
                each, inputs, seed, folder / each.name, lambda done, task=task: progress.update(task, completed=done)
            )
            rows.append(row)
            progress.update(task, completed=row["inputs"])
            if not console.is_terminal:
                console.print(f"{each.name}: {row['inputs']} inputs, {row['inputs_per_s']} a second", highlight=False)
            for finding in row["findings"]:
                progress.console.print(f"{each.name}: {finding}", markup=False, soft_wrap=True)
    options = (f" --runs {runs}" if runs != _RUNS else "") + (f" --only {only}" if only else "")
    report: dict[str, Any] = {
        "device": device_name(Device.CPU),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python -m tests.fuzz" + options,
        "inputs": sum(row["inputs"] for row in rows),
        "findings": sum(len(row["findings"]) for row in rows),
        "targets": rows,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.with_name(output.name + ".json")
    file.write_text(json.dumps(report, indent=2) + "\n")
    write_page(page, _page(report), _MARKERS)
    shown = Table(*_HEADERS)
    for row in rows:
        shown.add_row(*_cells(row))
    Console().print(shown)
    Console().print(f"written: {file}, {page}")
    if report["findings"]:
        raise SystemExit(1)


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["target"],
        row["what"],
        str(row["inputs"]),
        str(row["inputs_per_s"]),
        str(row["slowest_ms"]),
        f"{row['coverage_of_seeds']}, {row['coverage']}",
        f"{100 * row['memory_growth']:+.1f} %",
        "; ".join(row["findings"]) or "none",
    ]


def _page(report: Mapping[str, Any]) -> str:
    lines = [
        f"`{report['command']}` on {report['device']}, shared with other work, "
        f"{report['date']}: {report['inputs']} inputs, {report['findings']} findings.",
        "",
        "| " + " | ".join(_HEADERS) + " |",
        "|" + "---|" * len(_HEADERS),
        *("| " + " | ".join(_cells(row)) + " |" for row in report["targets"]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(command)
