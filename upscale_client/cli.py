"""`upscale4k`: pictures to 4K from the command line."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from upscale_client._calls import DEFAULT_ADDRESS, Tls
from upscale_client._client import UpscaleClient
from upscale_client._errors import UpscaleError
from upscale_client._messages import Encoding, Upscaled

SUFFIXES: dict[str, Encoding] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


class _Format(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


class _Profile(StrEnum):
    CLEAN = "clean"
    COMPRESSED = "compressed"


_INPUT_SUFFIXES = ", ".join(SUFFIXES)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def upscale(
    source: Annotated[Path, typer.Argument(help=f"A picture ({_INPUT_SUFFIXES}), or a folder of them.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The picture to write, or the folder. Default: beside the source, as *_4k."
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(envvar="UPSCALE4K_ADDRESS", help="Host and port of the service.")
    ] = DEFAULT_ADDRESS,
    model: Annotated[str, typer.Option(help="The network; default: the service's.")] = "",
    scale: Annotated[int, typer.Option(help="2 or 3; default: the largest that fits into 3840x2160.")] = 0,
    profile: Annotated[_Profile | None, typer.Option(help="clean: rendered; compressed: decoded video.")] = None,
    fmt: Annotated[
        _Format | None, typer.Option("--format", help="Default: what the output's name says, else png.")
    ] = None,
    quality: Annotated[int, typer.Option(min=0, max=100, help="Of JPEG and WebP; default 90.")] = 0,
    offline: Annotated[
        bool, typer.Option("--offline/--live", help="Offline, the live frames of others go first.")
    ] = True,
    step_down: Annotated[
        bool, typer.Option("--step-down", help="Let a lesser network answer rather than none in time.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Pictures in flight at once.")] = 2,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds one picture may take.")] = 60.0,
    tls: Annotated[bool, typer.Option("--tls", help="Connect by TLS.")] = False,
    ca: Annotated[Path | None, typer.Option(help="By TLS, trusting these certificates (PEM).")] = None,
    certificate: Annotated[Path | None, typer.Option(help="Your own certificate (PEM), if the service asks.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    token: Annotated[
        str, typer.Option(envvar="UPSCALE4K_TOKEN", help="Your key or token; better set as a variable.")
    ] = "",
) -> None:
    """Upscale a picture, or every picture of a folder."""
    pairs = _pairs(source, output, fmt.value if fmt else None)
    failures = 0
    secure = Tls(ca, certificate, key) if tls or ca or certificate or key else False
    try:
        connection = UpscaleClient(address, timeout_s=timeout_s, tls=secure, token=token)
    except (OSError, ValueError) as error:
        _refuse(str(error))
    with (
        connection as client,
        ThreadPoolExecutor(jobs) as pool,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        ) as progress,
    ):
        bar = progress.add_task("upscaling", total=len(pairs))

        def work(path: Path, target: Path) -> Upscaled:
            answer = client.upscale(
                path.read_bytes(),
                model=model,
                scale=scale,
                profile=profile.value if profile else None,
                output=SUFFIXES[target.suffix.lower()],
                quality=quality,
                priority="offline" if offline else "live",
                step_down=step_down,
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(answer.data)
            return answer

        jobs_running = {pool.submit(work, path, target): (path, target) for path, target in pairs}
        for job in as_completed(jobs_running):
            path, target = jobs_running[job]
            try:
                done = job.result()
                progress.console.print(
                    f"{target}: {done.width}x{done.height} by {done.variant} in {sum(done.stages_s.values()):.2f} s",
                    soft_wrap=True,
                )
            except (UpscaleError, OSError, ValueError) as error:
                failures += 1
                request_id = error.request_id if isinstance(error, UpscaleError) else ""
                quote = f" (request id {request_id})" if request_id else ""
                progress.console.print(f"upscale4k: {path}: {error}{quote}", soft_wrap=True, markup=False)
            progress.advance(bar)
    if failures:
        raise typer.Exit(1)


def _pairs(source: Path, output: Path | None, fmt: str | None) -> list[tuple[Path, Path]]:
    """Each picture and where its answer goes."""
    if source.is_dir():
        pictures = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        if not pictures:
            _refuse(f"no pictures ({_INPUT_SUFFIXES}) in {source}")
        folder = output or source.with_name(f"{source.resolve().name}_4k")
        stems = [path.stem for path in pictures]
        # Two sources with one stem, such as a.png and a.jpg, keep their suffixes apart.
        return [
            (path, folder / f"{path.stem if stems.count(path.stem) == 1 else path.name}.{fmt or 'png'}")
            for path in pictures
        ]
    if not source.is_file():
        _refuse(f"{source} does not exist")
    if output is None:
        return [(source, source.with_name(f"{source.stem}_4k.{fmt or 'png'}"))]
    if output.is_dir():
        return [(source, output / f"{source.stem}.{fmt or 'png'}")]
    target = output if fmt is None else output.with_suffix(f".{fmt}")
    if target.suffix.lower() not in SUFFIXES:
        _refuse(f"{output}: the output's name must end in one of {_INPUT_SUFFIXES}")
    return [(source, target)]


def _refuse(message: str) -> NoReturn:
    print(f"upscale4k: {message}", file=sys.stderr)
    raise typer.Exit(2)


def main() -> None:
    """Run the command line."""
    app(prog_name="upscale4k")
