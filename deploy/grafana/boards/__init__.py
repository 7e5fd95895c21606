"""The dashboards, one module each."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.boards import batching, budget, overview, runbook, shedding, stages, traffic, triton

FOLDER = Path(__file__).resolve().parents[1] / "dashboards"
_BOARDS = (overview, budget, stages, batching, shedding, triton, traffic, runbook)


def written() -> dict[str, str]:
    """Every dashboard's JSON by its file's name."""
    files: dict[str, str] = {}
    for module in _BOARDS:
        built = module.build().build()
        for number, panel in enumerate(built.panels or [], start=1):
            panel.id_val = panel.id_val or number
        name = str(built.uid).removeprefix("upscale-")
        files[f"{name}.json"] = json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
    return files
