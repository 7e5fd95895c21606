"""`python -m deploy.demo`: a real frame through the whole chain, and a look at what came out."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from deploy.embedded import EmbeddedTriton, EmbeddedTritonError
from deploy.embedded.server import free_port
from deploy.local import REPOSITORY, ROOT, LocalStack, LocalStackError
from models.blocks.resample import BicubicUpsample
from training.comparison import side_by_side
from training.degradation import degrade
from training.metrics import psnr
from training.quality import upscale
from upscale_client import UpscaleClient, Upscaled, UpscaleError

console = Console(soft_wrap=True)
_CROP = 320  # pixels of the 4K frame, in the comparison


def demo(
    original: Annotated[Path, typer.Option(help="A 4K picture; its LR frame is made from it.")] = (
        ROOT / "samples" / "nuthatch_4k.jpg"
    ),
    scale: Annotated[int, typer.Option(min=2, max=3, help="2: from 1080p; 3: from 720p.")] = 2,
    repository: Annotated[Path, typer.Option(help="The Triton model repository.")] = REPOSITORY,
    out: Annotated[Path, typer.Option(help="The folder for the pictures and the numbers.")] = ROOT / "out",
) -> None:
    """Start Triton and the gateway, upscale a frame over gRPC, measure it, stop what was started."""
    out.mkdir(parents=True, exist_ok=True)
    hr = np.asarray(Image.open(original).convert("RGB"))
    lr = degrade(hr, scale)
    console.print("starting the embedded Triton and the gateway ...")
    settings: dict[str, object] = {"port": free_port(), "metrics_port": free_port(), "log_level": "WARNING"}
    try:
        with LocalStack(EmbeddedTriton(repository, log=out / "triton.log"), settings) as stack:
            answer = _ask(stack.gateway.address, lr, scale)
    except (EmbeddedTritonError, LocalStackError, UpscaleError) as error:
        print(f"deploy.demo: {error}", file=sys.stderr)
        raise SystemExit(1) from None

    Image.fromarray(lr).save(out / "demo_lr.png")
    png = out / "demo_4k.png"
    png.write_bytes(answer.data)
    sr = np.asarray(Image.open(png))
    bicubic = upscale(BicubicUpsample(scale), lr)
    report = {
        "png": str(png),
        "width": answer.width,
        "height": answer.height,
        "variant": answer.variant,
        "psnr": round(psnr(sr, hr), 3),
        "psnr_bicubic": round(psnr(bicubic, hr), 3),
        "stages_ms": {stage: round(1000 * seconds, 2) for stage, seconds in answer.stages_s.items()},
    }
    (out / "demo.json").write_text(json.dumps(report, indent=2) + "\n")
    comparison = out / "demo_comparison.png"
    side_by_side([{"bicubic": bicubic, answer.variant: sr, "original": hr}], _CROP, _CROP).save(comparison)
    _show(report, comparison, lr)


def _ask(address: str, lr: NDArray[np.uint8], scale: int) -> Upscaled:
    file = io.BytesIO()
    Image.fromarray(lr).save(file, "PNG")
    with UpscaleClient(address) as client:
        return client.upscale(file.getvalue(), scale=scale, profile="clean", output="png")  # as a game renders it


def _show(report: Mapping[str, object], comparison: Path, lr: NDArray[np.uint8]) -> None:
    stages = report["stages_ms"]
    assert isinstance(stages, dict)
    table = Table("stage", "ms", "what", title=f"One {lr.shape[1]}x{lr.shape[0]} frame through the gateway")
    what = {
        "receive": "PNG from the client",
        "decode": "PNG to pixels in shared memory",
        "queue": "waiting for an instance",
        "infer": "Triton, on this CPU",
        "encode": "pixels to PNG",
    }
    for stage, milliseconds in stages.items():
        table.add_row(stage, f"{milliseconds:.1f}", what[stage])
    table.add_row("total", f"{sum(stages.values()):.1f}", "", style="bold")
    console.print(table)
    console.print(f"PSNR {report['psnr']} dB; bicubic {report['psnr_bicubic']} dB")
    console.print(f"side by side: {comparison}")
    console.print(f"numbers: {Path(str(report['png'])).with_name('demo.json')}")
    console.print(f"{report['width']}x{report['height']} by {report['variant']}: {report['png']}", style="bold")


if __name__ == "__main__":
    typer.run(demo)
