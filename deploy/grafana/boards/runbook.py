"""docs/runbook.md in Grafana: a panel for each of its sections."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.runbook import panel_id, sections

_LETTERS = 160
"""On a line, about."""


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board("runbook", "runbook", "What to do when an alert fires; the same as docs/runbook.md.")
    for title, text in sections().items():
        board.with_panel(panels.words(title, text, panel_id(title), height=_height(text)))
    return board


def _height(text: str) -> int:
    """In rows of the grid, each as high as a line and a half."""
    return 3 + sum(1 + len(line) // _LETTERS for line in text.splitlines())
