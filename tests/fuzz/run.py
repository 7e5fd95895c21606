"""Runs the workers one after the other, watches them, and says what is wrong."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from scipy.stats import theilslopes

from deploy.embedded.server import LIFELINE
from tests.fuzz.fuzzed import Target

_WARM_SHARE = 0.2
"""Of the inputs, before anything is held against anything: pools, caches and the fuzzer's own corpus fill."""
MEMORY_MAY_GROW = 0.03
"""Of itself, over the inputs after the warm-up, by the trend; the fuzzer's own corpus is in it."""
_FEWEST_FOR_A_TREND = 10_000
"""Inputs; of fewer, what the fuzzer itself learns is most of the growth."""
_DESCRIPTORS_MAY_GROW = 130
"""Sixty-four lanes are kept for the next frame of their format, each a file and its mapping."""
_STUCK_S = 120.0
"""Nothing new from a worker for so long: not even its own alarm works."""
_POLL_S = 0.2
_COVERAGE = re.compile(r"^#\d+\s+(\w+)\s+cov: (\d+) ft: (\d+)", re.MULTILINE)


def fuzz(
    chosen: Target, inputs: int, seed: int, folder: Path, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Fuzz one target; what came of it, with what is wrong as `findings`.

    Args:
        chosen: the target.
        inputs: so many; fewer if it breaks.
        seed: the same one gives the same inputs, as long as the code is the same.
        folder: emptied; then there are the log, the corpus, and what broke the target.
        progress: called with the inputs done so far.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    told = json.dumps(asdict(chosen))
    command = [sys.executable, "-m", "tests.fuzz.worker", told, str(inputs), str(seed), str(folder)]
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen([*LIFELINE, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            stuck = _watch(worker, folder / "samples.jsonl", progress)
        finally:
            worker.kill()
            worker.wait()
    samples = read_samples(folder / "samples.jsonl")
    text = (folder / "log").read_text(errors="replace")
    findings = judge(samples)
    if stuck:
        findings.append(f"stuck for {_STUCK_S:.0f} s, and its own alarm did not go off")
    elif worker.returncode:
        findings.insert(0, _broken(chosen, folder, text, worker.returncode))
    coverage = [(int(cov), int(features)) for _, cov, features in _COVERAGE.findall(text)] or [(0, 0)]
    first = next((int(cov) for kind, cov, _ in _COVERAGE.findall(text) if kind == "INITED"), 0)
    took = samples[-1]["at"] - samples[0]["at"] if len(samples) > 1 else 0.0
    return {
        "target": chosen.name,
        "what": chosen.what,
        "inputs": samples[-1]["inputs"] if samples else 0,
        "seconds": round(took, 1),
        "inputs_per_s": round((samples[-1]["inputs"] - samples[0]["inputs"]) / took) if took else None,
        "slowest_ms": samples[-1]["slowest_ms"] if samples else None,
        "coverage_of_seeds": first,
        "coverage": coverage[-1][0],
        "features": coverage[-1][1],
        "memory_mb": round(samples[-1]["memory_bytes"] / 1e6) if samples else None,
        "memory_growth": round(growth(samples), 4),
        "findings": findings,
    }


def _watch(worker: subprocess.Popen[bytes], file: Path, progress: Callable[[int], None]) -> bool:
    """Wait for the worker's end; whether it had to be given up."""
    seen, since = 0, time.monotonic()
    ended = False
    while not ended:
        ended = worker.poll() is not None  # before the look: the last samples are seen, too
        samples = read_samples(file)
        if samples and samples[-1]["inputs"] > seen:
            seen, since = samples[-1]["inputs"], time.monotonic()
            progress(seen)
        if not ended:
            if time.monotonic() > since + _STUCK_S:
                return True
            time.sleep(_POLL_S)
    return False


def read_samples(file: Path) -> list[dict[str, Any]]:
    """What a worker has noted; a line that it is just writing is left out."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines]


def growth(samples: Sequence[Mapping[str, Any]]) -> float:
    """By how much of itself the memory grew over the inputs after the warm-up, by the trend."""
    settled = samples[round(_WARM_SHARE * len(samples)) :]
    if len(settled) < 3:
        return 0.0
    counts = [sample["inputs"] for sample in settled]
    memory = [sample["memory_bytes"] for sample in settled]
    slope = cast("float", theilslopes(memory, counts)[0])
    return slope * (counts[-1] - counts[0]) / statistics.median(memory)


def judge(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a worker holds that it should not."""
    if not samples or samples[-1]["inputs"] < _FEWEST_FOR_A_TREND:
        return []
    findings: list[str] = []
    if (more := growth(samples)) > MEMORY_MAY_GROW:
        findings.append(f"memory grew by {100 * more:.1f} %")
    settled = samples[round(_WARM_SHARE * len(samples)) :]
    if (left := settled[-1]["descriptors"] - settled[0]["descriptors"]) > _DESCRIPTORS_MAY_GROW:
        findings.append(f"{left} descriptors were left open")
    return findings


def _broken(chosen: Target, folder: Path, log: str, code: int) -> str:
    kept = [file for kind in ("crash", "timeout", "oom", "leak") for file in sorted(folder.glob(f"{kind}-*"))]
    said = [line for line in log.splitlines() if re.match(r"\w*(Error|Exception)\b|==\d+== ?ERROR", line)]
    why = said[0] if said else f"ended with code {code}"
    if not kept:
        return f"{why} (see {folder / 'log'})"
    command = f"python -m tests.fuzz --only {chosen.name} --reproduce {shlex.quote(str(kept[0]))}"
    return f"{why}; again by: {command}"
