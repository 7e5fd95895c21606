"""Parameters and multiply-accumulates of every network, counted without computing, beside the report's.

Two counts, because the report's "FLOPs" are the organisers': convolution and linear *modules* by their MACs without
bias, plus one for every output element of a ReLU-like *module*, two for a batch normalisation's, and nothing for what
is called as a function. The true count is of every convolution and matrix product that runs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.registry import get, specs
from models.reparam import reparameterise
from models.spec import ModelSpec

_RELU_LIKE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU)
PROTOCOL_SIZES = {2: (1920, 1080), 3: (1280, 720)}
"""Height and width of the organisers' input tensor by scale: they pass 1080p and 720p as portrait."""

Verdict = Literal["exact", "within 2%", "different", "reference"]


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one frame."""

    params: int
    macs: int
    """Multiply-accumulates of all convolutions and matrix products."""
    macs_official: int
    """The organisers' count."""


@dataclass(frozen=True)
class Row:
    """A method at a scale, beside the report's row."""

    model: str
    scale: int
    params: int
    macs: int
    macs_official: int
    report_params_m: float | None
    report_gmacs: float | None
    verdict: Verdict
    """`exact` to the report's printed digits; `reference` for what it prints no numbers of."""
    note: str

    @classmethod
    def of(cls, spec: ModelSpec, scale: int, cost: Complexity) -> Row:
        """The row of a network of `spec` that costs `cost`; where the report means another one, that is counted too."""
        reported = spec.reported[scale]
        judged, note = cost, reported.note
        if printed := reported.printed:
            judged = complexity(reparameterise(printed.build()), printed.height, printed.width)
            note = (
                f"the report prints {printed.description}: {judged.params / 1e6:.4f} M and "
                f"{judged.macs_official / 1e9:.4f} G, which the verdict is for"
            )
        verdict = _verdict(judged, reported.params_m, reported.gmacs)
        return cls(
            spec.name,
            scale,
            **asdict(cost),
            report_params_m=reported.params_m,
            report_gmacs=reported.gmacs,
            verdict=verdict,
            note=note,
        )


def complexity(network: nn.Module, height: int, width: int) -> Complexity:
    """Count `network` (deployed form) on one RGB frame of height x width pixels."""
    network = copy.deepcopy(network).to("meta").eval()
    official = 0

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal official
        if isinstance(module, nn.Conv2d):
            official += module.weight[0].numel() * output.numel()
        elif isinstance(module, nn.ConvTranspose2d):
            # Every input channel for every output pixel, as if the stride were 1: that is how the organisers count it.
            official += module.weight.numel() * output[:, 0].numel()
        elif isinstance(module, nn.Linear):
            official += module.in_features * output.numel()
        elif isinstance(module, nn.BatchNorm2d):
            official += 2 * output.numel()
        elif isinstance(module, _RELU_LIKE):
            official += output.numel()

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network(torch.empty(1, 3, height, width, device="meta"))
    params = sum(parameter.numel() for parameter in network.parameters())
    return Complexity(params, flops.get_total_flops() // 2, official)


def rows(only: str = "all") -> Iterator[Row]:
    """Every (method, scale) of the zoo, or of one method, by scale and name.

    Raises:
        UnknownModelError: there is no method called `only`.
    """
    chosen = specs().values() if only == "all" else [get(only)]
    for scale, size in PROTOCOL_SIZES.items():
        for spec in chosen:
            if scale in spec.scales:
                yield Row.of(spec, scale, complexity(reparameterise(spec.build(scale)), *size))


def _verdict(cost: Complexity, params_m: float | None, gmacs: float | None) -> Verdict:
    if params_m is None or gmacs is None:
        return "reference"
    params, macs = cost.params / 1e6, cost.macs_official / 1e9
    # The report prints parameters with four decimals, and MACs with as many as it likes.
    decimals = len(str(gmacs).partition(".")[2])
    if round(params, 4) == params_m and round(macs, decimals) == gmacs:
        return "exact"
    return "within 2%" if abs(params / params_m - 1) <= 0.02 and abs(macs / gmacs - 1) <= 0.02 else "different"


def command(
    model: Annotated[str, typer.Option(help="One method, or 'all'.")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Parameters and MACs of every network in its deployed form, beside the report's."""
    measured = list(rows(model))
    if as_json:
        print(json.dumps([asdict(row) for row in measured], indent=2))
        return
    table = Table("model", "scale", "params M", "report", "GMAC", "organisers' count", "report", "verdict", "note")
    for row in measured:
        table.add_row(
            row.model,
            f"x{row.scale}",
            f"{row.params / 1e6:.4f}",
            "" if row.report_params_m is None else f"{row.report_params_m:g}",
            f"{row.macs / 1e9:.3f}",
            f"{row.macs_official / 1e9:.4f}",
            "" if row.report_gmacs is None else f"{row.report_gmacs:g}",
            row.verdict,
            row.note,
        )
    console = Console()
    console.print(table)
    verdicts = [row.verdict for row in measured]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(sorted(verdicts)))
    console.print(f"{len(measured)} rows: {counts}. 1080p (x2) or 720p (x3) to 4K.")
