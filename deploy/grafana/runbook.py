"""docs/runbook.md as a dashboard, so that it is there, behind the same login, when the panel links to it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

TAG = "upscale"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
UID = f"{TAG}-runbook"


@cache
def sections() -> dict[str, str]:
    """The page's sections by their headings, in order: the alerts', and the general ones."""
    parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return {title: _standing_alone(body.strip()) for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def panel_id(section: str) -> int:
    """The number of a section's panel."""
    return list(sections()).index(section) + 1


def url(section: str = "") -> str:
    """Where Grafana shows a section, or all.

    Raises:
        ValueError: there is no such section.
    """
    return f"/d/{UID}" + (f"?viewPanel={panel_id(section)}" if section else "")


def _standing_alone(markdown: str) -> str:
    """Links between files of the repository lead nowhere in Grafana: their places are named instead.

    Paragraphs become one line each, for Grafana's text panels may keep the breaks.
    """
    markdown = re.sub(r"\[([^]]+)]\(#([^)]+)\)", r"\1", markdown)
    markdown = re.sub(r"\[([^]]+)]\(\.\./([^)]+)\)", r"\1", markdown)
    markdown = re.sub(r"\[([^]]+)]\((?!https?:)([^)]+)\)", r"\1 (docs/\2)", markdown)
    paragraphs = markdown.split("\n\n")
    return "\n\n".join(each if each.startswith("    ") else each.replace("\n", " ") for each in paragraphs)
