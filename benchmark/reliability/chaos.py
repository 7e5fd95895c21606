"""`python -m benchmark chaos`: breaks the service in every way that is known, under load, and counts what is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmark.errors import BenchmarkError
from benchmark.reliability.faults import FAULTS, Fault, Report
from benchmark.reliability.load import Expected, Load, record
from benchmark.reliability.service import Service, make_repository, started
from benchmark.runtime import Device, device_name
from benchmark.serving.report import write_page
from deploy.embedded import EmbeddedTriton
from deploy.local import ROOT

_MARKERS = ("<!-- begin: python -m benchmark chaos -->", "<!-- end: python -m benchmark chaos -->")
_FRAMES = 10_000
_BEFORE, _AFTER = 0.3, 0.3
"""Shares of the frames that are answered before a fault begins, and after it is over."""
_PATIENCE_S = 300.0
"""For them, however slow the machine."""


def command(
    frames: Annotated[int, typer.Option(min=100, help="In all; more if the faults take longer.")] = _FRAMES,
    only: Annotated[str, typer.Option(help="Only faults with this in their name.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    output: Annotated[Path, typer.Option(help="Where .json goes: a path without suffix.")] = ROOT
    / "docs"
    / "benchmarks"
    / "chaos",
    page: Annotated[Path, typer.Option(help="The Markdown page whose table is written.")] = ROOT
    / "docs"
    / "reliability.md",
) -> None:
    """What becomes of frames when parts of the service are killed, hang, fill up, or are attacked."""
    with tempfile.TemporaryDirectory(prefix="upscale-benchmark-") as folder:
        faults = [fault for fault in FAULTS if only in fault.name]
        if not faults:
            raise BenchmarkError(f"no fault has {only!r} in its name")
        rows = asyncio.run(measure(Path(folder), frames // len(FAULTS), faults))
    options = (f" --frames {frames}" if frames != _FRAMES else "") + (f" --only '{only}'" if only else "")
    report: dict[str, Any] = {
        "device": device_name(Device.CPU),
        "cores": os.cpu_count(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python -m benchmark chaos" + options,
        "faults": rows,
        "summary": summary(rows),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    file = output.with_name(output.name + ".json")
    file.write_text(json.dumps(report, indent=2) + "\n")
    write_page(page, _page(report), _MARKERS)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(rows)
        Console().print(f"written: {file}, {page}")
    if findings := [f"{row['fault']}: {each}" for row in rows for each in row["findings"]]:
        raise BenchmarkError(f"{len(findings)} findings, the first: {findings[0]}")


async def measure(folder: Path, frames: int, faults: Sequence[Fault] = FAULTS) -> list[dict[str, Any]]:
    """Inject the faults one after the other, each under a load of at least so many frames."""
    repository = await asyncio.to_thread(make_repository, folder / "models")
    with EmbeddedTriton(repository, log=folder / "triton.log") as triton:
        with started(triton, folder) as service:
            expected = await record(service.address)
        shown = track(faults, "faults", console=Console(stderr=True))
        return [await inject(triton, folder, fault, expected, frames) for fault in shown]


async def inject(triton: EmbeddedTriton, folder: Path, fault: Fault, expected: Expected, frames: int) -> dict[str, Any]:
    """Inject a fault into a gateway of its own; returns what came of it, with what is wrong as `findings`.

    Args:
        triton: with the networks of `make_repository`; it may be killed and started again.
        folder: for the gateway's log.
        fault: which.
        expected: the answers, as `record` gives them.
        frames: how many are to be answered at least.
    """
    if fault.own_shared_memory and (refusal := _no_namespaces()):
        return {"fault": fault.name, "not_run": refusal, "findings": []}
    wrapper = _own_shared_memory(fault.own_shared_memory) if fault.own_shared_memory else []
    with started(triton, folder, wrapper=wrapper, **dict(fault.settings)) as service:
        return await _one(service, fault, expected, frames)


async def _one(service: Service, fault: Fault, expected: Expected, frames: int) -> dict[str, Any]:
    async with _loaded(service, expected) as warming:
        await warming.until(100, _PATIENCE_S)
    before = await asyncio.to_thread(service.idle)
    async with _loaded(service, expected) as load:
        quiet = await load.until(round(_BEFORE * frames), _PATIENCE_S)
        report = await fault.inject(service)
        recovered = await load.until(max(frames, load.tally.right + round(_AFTER * frames)), _PATIENCE_S)
    after = await asyncio.to_thread(service.idle, before)
    tally = load.tally
    wrong_codes = {code: count for code, count in tally.failed.items() if code not in fault.allowed}
    left = {name: more for name, more in after.more_than(before).items() if name not in fault.keeps}
    findings = [
        *(["it did not answer frames before the fault"] if not quiet else []),
        *(["it did not answer frames again after the fault"] if not recovered else []),
        *(f"a wrong answer: {each}" for each in tally.wrong),
        *(f"a frame without an answer: {each}" for each in tally.lost),
        *(f"{count} frames failed with {code}" for code, count in wrong_codes.items()),
        *(f"{count} {name} left over" for name, count in left.items()),
        *report.unexpected,
    ]
    if tally.done != tally.sent:
        findings.append(f"{tally.sent} frames were sent, and {tally.done} answered or failed")
    return {
        "fault": fault.name,
        "frames": tally.sent,
        "answered": tally.right,
        "failed": dict(sorted(tally.failed.items())),
        "wrong": len(tally.wrong),
        "lost": len(tally.lost),
        "recovery_s": _recovery_s(load, report),
        "held_before": asdict(before),
        "held_after": asdict(after),
        "findings": findings,
    }


def _recovery_s(load: Load, report: Report) -> float | None:
    """From the moment that the broken part works again to the first answer of a frame that was sent after that."""
    if report.restored_at is None:
        return None
    first = load.tally.first_right_since(report.restored_at)
    return None if first is None else round(first - report.restored_at, 3)


@contextlib.asynccontextmanager
async def _loaded(service: Service, expected: Expected) -> AsyncGenerator[Load]:
    """A load as long as this is entered."""
    load = Load(service.address, expected)
    running = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        load.stop()
        await running


def _own_shared_memory(size: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"', "sh"]


def _no_namespaces() -> str:
    """Why a gateway cannot have a /dev/shm of its own; "" if it can."""
    with contextlib.suppress(OSError):
        tried = subprocess.run([*_own_shared_memory("1m"), "true"], check=False, capture_output=True, text=True)
        return tried.stderr.strip() if tried.returncode else ""
    return "no unshare(1)"


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers that are held against what is wanted."""
    run = [row for row in rows if "not_run" not in row]
    recoveries = [row["recovery_s"] for row in run if row["recovery_s"] is not None]
    return {
        "frames": sum(row["frames"] for row in run),
        "wrong": sum(row["wrong"] for row in run),
        "lost": sum(row["lost"] for row in run),
        "findings": sum(len(row["findings"]) for row in run),
        "slowest_recovery_s": max(recoveries, default=None),
        "not_run": [row["fault"] for row in rows if "not_run" in row],
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "not_run" in row:
        return [row["fault"], f"not run: {row['not_run']}", *[""] * 5]
    failed = ", ".join(f"{count} {code}" for code, count in row["failed"].items())
    recovery = "" if row["recovery_s"] is None else f"{row['recovery_s']:.2f}"
    left = [each for each in row["findings"] if each.endswith("left over")]
    return [
        row["fault"],
        str(row["frames"]),
        str(row["answered"]),
        failed or "0",
        str(row["wrong"] + row["lost"]),
        recovery,
        "; ".join(left) or "nothing",
    ]


_HEADERS = ("fault", "frames", "answered", "failed", "wrong or lost", "recovery, s", "left over")


def _page(report: Mapping[str, Any]) -> str:
    total = report["summary"]
    lines = [
        f"`{report['command']}` on {report['device']}, {report['date']}: "
        f"{total['frames']} frames, {total['wrong']} wrong, {total['lost']} lost.",
        "",
        "| " + " | ".join(_HEADERS) + " |",
        "|" + "---|" * len(_HEADERS),
        *("| " + " | ".join(_cells(row)) + " |" for row in report["faults"]),
    ]
    return "\n".join(lines)


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    shown = Table(*_HEADERS)
    for row in rows:
        shown.add_row(*_cells(row))
    Console().print(shown)
    for row in rows:
        for finding in row["findings"]:
            Console().print(f"{row['fault']}: {finding}", markup=False)
