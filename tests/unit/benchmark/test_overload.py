"""What is said of a load, and the page and the picture of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmark.overload.load import Outcome, Wanted
from benchmark.overload.report import draw, row, summary, table

WANTED = Wanted(np.zeros((16, 16, 3), np.uint8), 3, budget_s=0.05)


def outcome(in_time: int, late: int = 0, refused: int = 0, dropped: int = 0) -> Outcome:
    service = [0.02] * in_time + [0.06] * late
    return Outcome(
        offered=in_time + late + refused + dropped,
        answered_s=service,
        service_s=[*service],
        refused_s=[0.002] * refused,
        refusals=Counter({"0.005": refused * 3 // 4, "+Inf": refused}),
        dropped=dropped,
        elapsed_s=2.0,
        models={"runet": in_time},
    )


def test_a_frame_is_in_time_if_the_service_was() -> None:
    found = row(2.0, outcome(in_time=60, late=2, refused=36, dropped=2), WANTED)
    assert (found["offered"], found["in_time"], found["late"]) == (100, 60, 2)
    assert found["goodput_per_s"] == 30
    assert found["share_in_time"] == 0.6
    assert found["late_of_accepted"] == pytest.approx(4 / 64)
    assert found["refusal_by_client"]["p99_ms"] == 2
    assert found["refused_within_5ms"] == 0.75


def test_passes_add_up() -> None:
    both = outcome(10, refused=5)
    both.add(outcome(20, late=1))
    assert (both.offered, len(both.answered_s), both.elapsed_s, both.models) == (36, 31, 4.0, {"runet": 30})


def test_the_summary_and_the_page_say_what_the_rows_do(tmp_path: Path) -> None:
    plain = [row(load, outcome(80, refused=int(40 * load)), WANTED) for load in (0.9, 2.0, 5.0)]
    stepping = Wanted(WANTED.frame, 3, 0.05, step_down=True)
    rows = [*plain, row(2.0, outcome(99, late=1), stepping)]
    found = summary(rows, 0.05)
    assert found == {
        "goodput_2x_vs_0.9x": 1,
        "goodput_5x_vs_0.9x": 1,
        "worst_p99_vs_budget": 0.4,
        "refused_within_5ms": pytest.approx(0.75, abs=0.01),
        "ladder_in_time_2x": 0.99,
    }
    report = {
        "date": "2026-01-01",
        "device": "a CPU",
        "command": "python -m benchmark overload",
        "models": "All.",
        "width": 16,
        "height": 16,
        "scale": 3,
        "budget_ms": 50.0,
        "capacity_per_s": 50.0,
        "loads": rows,
        "summary": found,
    }
    page = table(report, "overload.svg")
    assert "| 2x | runet 100 % | 100 | 99 | 1 |" in page
    assert "99.0 % of all" in page
    draw(report, tmp_path / "overload.svg")
    assert "with the ladder" in (tmp_path / "overload.svg").read_text()
