"""docs/runbook.md in Grafana: a panel for each of its sections."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.runbook import panel_id, sections


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board("runbook", "runbook", "What to do when an alert fires; the same as docs/runbook.md.")
    for title, text in sections().items():
        board.with_panel(panels.words(title, text, panel_id(title), height=3 + text.count("\n")))
    return board
