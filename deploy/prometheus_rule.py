"""`python -m deploy.prometheus_rule | kubectl apply -f -`: deploy/prometheus/rules for the Prometheus operator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

RULES = Path(__file__).resolve().parent / "prometheus" / "rules"


def prometheus_rule(folder: Path, name: str, namespace: str) -> dict[str, Any]:
    """A PrometheusRule with the groups of all rule files (.yml, .yaml) of a folder.

    Raises:
        FileNotFoundError: there are none.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix in (".yml", ".yaml"))
    if not files:
        raise FileNotFoundError(f"no rules in {folder}")
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"groups": [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]},
    }


def main(
    rules: Annotated[Path, typer.Option(help="The folder of Prometheus' rule files.")] = RULES,
    name: Annotated[str, typer.Option(help="The PrometheusRule's name.")] = "upscale",
    namespace: Annotated[str, typer.Option(help="The namespace it goes to.")] = "upscale",
) -> None:
    """Print a PrometheusRule with all rules."""
    try:
        rule = prometheus_rule(rules, name, namespace)
    except FileNotFoundError as error:
        print(f"deploy.prometheus_rule: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    yaml.safe_dump(rule, sys.stdout, sort_keys=False, allow_unicode=True)


if __name__ == "__main__":
    typer.run(main)
