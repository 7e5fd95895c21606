"""`python -m deploy.grafana`: write every dashboard to deploy/grafana/dashboards, as Grafana provisions it."""

from __future__ import annotations

from deploy.grafana.boards import FOLDER, written


def main() -> None:
    """Write the dashboards, and remove what is none any more."""
    FOLDER.mkdir(exist_ok=True)
    files = written()
    for old in FOLDER.glob("*.json"):
        if old.name not in files:
            old.unlink()
    for name, content in files.items():
        (FOLDER / name).write_text(content)
    print(f"written: {len(files)} dashboards in {FOLDER}")


if __name__ == "__main__":
    main()
