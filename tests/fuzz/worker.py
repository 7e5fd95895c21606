"""`python -m tests.fuzz.worker TARGET RUNS SEED FOLDER`: fuzzes a target, given as JSON, until it breaks or is done.

libFuzzer ends the process itself, so everything is written as it happens: its log to standard error, samples to
FOLDER/samples.jsonl, what broke the target to FOLDER.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import atheris as _atheris
import psutil

from tests.fuzz.fuzzed import Fuzzed, Target

atheris: Any = _atheris  # some of its names are made at import time, unseen by type checkers

TIMEOUT_S = 5
"""An input that takes longer is a hang."""
_MOST_MEMORY_MB = 2048
_SAMPLES = 200


class _Watch:
    """Counts inputs, and notes now and then what the process holds."""

    def __init__(self, runs: int, file: Path) -> None:
        self._runs = runs
        self._every = max(1, runs // _SAMPLES)
        self._file = file.open("w")
        self._process = psutil.Process()
        self._inputs = 0
        self._slowest_s = 0.0

    def took(self, seconds: float) -> None:
        self._inputs += 1
        self._slowest_s = max(self._slowest_s, seconds)
        if self._inputs % self._every == 0 or self._inputs == self._runs:
            sample = {
                "at": time.monotonic(),
                "inputs": self._inputs,
                "memory_bytes": self._process.memory_info().rss,
                "descriptors": self._process.num_fds(),
                "slowest_ms": round(1000 * self._slowest_s, 1),
            }
            self._file.write(json.dumps(sample) + "\n")
            self._file.flush()


def fuzz(chosen: Target, runs: int, seed: int, folder: Path) -> None:
    """Fuzz it; does not return."""
    with atheris.instrument_imports(include=list(chosen.packages)):
        fuzzed = chosen.load()
    seeds = folder / "seeds"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(fuzzed.seeds()):
        (seeds / f"{number:03}").write_bytes(data)
    (folder / "corpus").mkdir(exist_ok=True)
    watch = _Watch(runs, folder / "samples.jsonl")

    def one(data: bytes) -> None:
        began = time.perf_counter()
        fuzzed.one(data)
        watch.took(time.perf_counter() - began)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        return fuzzed.mend(atheris.Mutate(data, longest), random.Random(seed))[:longest]

    options = [
        f"-runs={runs}",
        f"-seed={seed}",
        f"-max_len={chosen.longest}",
        f"-timeout={TIMEOUT_S}",
        f"-rss_limit_mb={_MOST_MEMORY_MB}",
        f"-artifact_prefix={folder}/",
        "-reload=0",
    ]
    mends = type(fuzzed).mend is not Fuzzed.mend
    atheris.Setup(
        [sys.argv[0], *options, str(folder / "corpus"), str(seeds)],
        one,
        **({"custom_mutator": mutate} if mends else {}),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    chosen, runs, seed, folder = sys.argv[1:]
    fuzz(Target(**json.loads(chosen)), int(runs), int(seed), Path(folder))
