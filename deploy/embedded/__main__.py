"""`python -m deploy.embedded`: the embedded Triton on a model repository, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from deploy.embedded.server import EmbeddedTriton, EmbeddedTritonError


def serve(
    repository: Annotated[Path, typer.Option(help="The Triton model repository.")] = Path("model_repository"),
    grpc_port: Annotated[int, typer.Option(help="0 picks a free port.")] = 8001,
    http_port: Annotated[int, typer.Option(help="0 picks a free port.")] = 8000,
    metrics_port: Annotated[int, typer.Option(help="0 picks a free port.")] = 8002,
    engine: Annotated[str, typer.Option(help="openvino, openvino-bf16, onnxruntime or torch.")] = "openvino",
    threads: Annotated[int, typer.Option(min=0, help="Of the engine; 0: every core.")] = 0,
    log: Annotated[Path | None, typer.Option(help="File for Triton's log.")] = None,
) -> None:
    """Run the embedded Triton until Ctrl-C or SIGTERM."""
    stop_signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
    triton = EmbeddedTriton(
        repository,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        engine=engine,
        threads=threads,
        log=log,
    )
    try:
        triton.start()
    except EmbeddedTritonError as error:
        print(f"deploy.embedded: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"Triton is ready: gRPC {triton.url}, metrics {triton.metrics_url}. Ctrl-C stops it.", flush=True)
    signal.sigwait(stop_signals)
    triton.stop()


if __name__ == "__main__":
    typer.run(serve)
