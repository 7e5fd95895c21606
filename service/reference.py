"""`python -m service.reference`: the table of settings in docs/operations.md, written from the settings themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from service.settings import Settings, env_name

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
BEGIN, END = "<!-- begin: python -m service.reference -->", "<!-- end: python -m service.reference -->"
_OF_THE_MACHINE = {"codec_threads": "number of cores"}
"""Defaults that are not the same everywhere."""


def table() -> str:
    """The settings: name, variable, default, meaning."""
    lines = ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = _OF_THE_MACHINE.get(name) or _default(field.get_default(call_default_factory=True))
        lines.append(f"| `{name}` | `{env_name(name)}` | {default} | {_meaning(field)} |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value in ("", None):
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    if get_origin(field.annotation) is Literal:
        text += f" One of {', '.join(f'`{choice}`' for choice in get_args(field.annotation))}."
    return text


def written(page: str) -> str:
    """The page with the table of now between its markers.

    Raises:
        ValueError: it has no such markers.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def main() -> None:
    """Write the table into the page, docs/operations.md unless another is named."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    try:
        page.write_text(written(page.read_text()))
    except (OSError, ValueError) as error:
        print(f"service.reference: {page}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"written: {page}")


if __name__ == "__main__":
    main()
