"""`python -m benchmark`: one command per question."""

from __future__ import annotations

import sys

import typer

from benchmark import complexity, engines, runtime, sizing, zoo
from benchmark.errors import BenchmarkError
from benchmark.overload import command as overload
from benchmark.quality import command as quality
from benchmark.reliability import chaos, soak
from benchmark.scheduling import command as scheduling
from benchmark.serving import chain
from benchmark.serving import command as serving
from deploy.embedded import EmbeddedTritonError
from deploy.local import LocalStackError
from export.errors import ExportError
from models.registry import UnknownModelError, UnsupportedScaleError
from models.weights import WeightsError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def benchmark() -> None:
    """Measure the networks and the service."""


app.command("complexity")(complexity.command)
app.command("models")(zoo.command)
app.command("quality")(quality.command)
app.command("runtime")(runtime.command)
app.command("serving")(serving.command)
app.command("chain")(chain.command)
app.command("engines")(engines.command)
app.command("scheduling")(scheduling.command)
app.command("overload")(overload.command)
app.command("chaos")(chaos.command)
app.command("soak")(soak.command)
app.command("sizing")(sizing.command)

if __name__ == "__main__":
    try:
        app(prog_name="python -m benchmark")
    except (
        BenchmarkError,
        EmbeddedTritonError,
        ExportError,
        LocalStackError,
        UnknownModelError,
        UnsupportedScaleError,
        WeightsError,
    ) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        raise SystemExit(2) from None
