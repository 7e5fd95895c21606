"""Training many methods, one process each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One training run."""

    model: str
    scale: int
    profile: str
    log: Path
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """The variant that is trained."""
        return f"{self.model}_x{self.scale}_{self.profile}"


@dataclass(frozen=True)
class Finished:
    """A run that has ended."""

    job: Job
    failed: bool
    last_words: str
    """The line of its log that tells the result, or why there is none."""


def train_all(jobs: Sequence[Job], at_once: int) -> Iterator[Finished]:
    """Run the jobs, `at_once` at a time, each on its share of the cores; yields each as it ends."""
    threads = max(1, (os.cpu_count() or 1) // at_once)
    # Threads that wait by spinning would take the cores from the neighbours.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(_run, job, environment) for job in jobs]
        for done in as_completed(running):
            yield done.result()


def _run(job: Job, environment: dict[str, str]) -> Finished:
    command = [sys.executable, "-m", "training", "--model", job.model, "--scale", str(job.scale)]
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("w") as log:
        done = subprocess.run(
            [*command, "--profile", job.profile, *job.options],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = job.log.read_text(errors="replace").strip().splitlines()
    telling = [line for line in lines if line.startswith(("test,", "training:"))] or lines[-1:]
    return Finished(job, bool(done.returncode), telling[0] if telling else "")
