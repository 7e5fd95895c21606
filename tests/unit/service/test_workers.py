"""The metrics of several workers as one; tests/integration/test_workers.py has the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.workers import METRICS_FOLDER, WorkersMetrics

_WORKER = "from prometheus_client import Gauge; Gauge('busy', 'Busy.', multiprocess_mode='sum').set(2)"


def test_a_file_that_a_worker_is_just_making_hides_no_others(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(WorkersMetrics(tmp_path))
    assert registry.get_sample_value("busy") is None
    for _ in range(2):
        environment = {**os.environ, METRICS_FOLDER: str(tmp_path)}
        subprocess.run([sys.executable, "-c", _WORKER], env=environment, check=True)
    assert registry.get_sample_value("busy") == 4
    (tmp_path / "gauge_livesum_1.db").touch()
    (tmp_path / "histogram_1.db").touch()
    assert registry.get_sample_value("busy") == 4
