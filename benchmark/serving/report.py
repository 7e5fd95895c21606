"""The report: rows, ratios, the page's table and the chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.charts import bars
from benchmark.serving.measure import Row, percentiles_ms

CLIENTS = (1, 4)
BEGIN = "<!-- begin: python -m benchmark serving -->"
END = "<!-- end: python -m benchmark serving -->"

TARGETS: dict[str, tuple[str, float]] = {
    "unary_rgb_vs_triton_bytes": ("at most", 0.6),
    "shm_vs_triton_shm": ("at most", 1.15),
    "stream_runet_vs_ort": ("at least", 0.95),
    "cpu_nv12_vs_rgb": ("at most", 0.55),
    "cpu_shm_vs_rgb": ("at most", 0.1),
    "overhead_vs_best_peer": ("at most", 0.5),
}
_MEANING = {
    "unary_rgb_vs_triton_bytes": "p50 of a unary RGB24 call to the gateway / of tritonclient with bytes, identity",
    "shm_vs_triton_shm": "p50 by the gateway's shared memory / by tritonclient's, identity",
    "stream_runet_vs_ort": "frames/s of RUNet x2 by a stream / of ONNX Runtime in-process, the same threads",
    "cpu_nv12_vs_rgb": "the gateway's CPU for a frame in NV12 / in RGB24, unary, identity",
    "cpu_shm_vs_rgb": "the gateway's CPU for an RGB24 frame by shared memory / in a unary call, identity",
    "overhead_vs_best_peer": "p50 less that of the function in-process: gateway, unary RGB24 / best peer, identity",
}
_PEERS = ("litserve", "bentoml")
"""Those that `overhead_vs_best_peer` looks at: served by the frameworks' own APIs."""


def as_dict(row: Row) -> dict[str, Any]:
    """A row of the report."""
    frames = row.answered[1]
    served, gateway_or_peer = row.way.server != "in_process", row.way.server not in ("in_process", "triton")
    return {
        "way": row.way.name,
        "label": row.way.label,
        "model": row.way.model,
        "pixel_format": row.way.pixel_format,
        "frames": len(row.seconds),
        **percentiles_ms(row.seconds),
        **{f"frames_per_s_{clients}": round(row.frames_per_s(clients), 2) for clients in CLIENTS},
        "cpu_s_per_frame": round(row.front_cpu_s / frames, 6) if gateway_or_peer else None,
        "cpu_all_s_per_frame": round(row.all_cpu_s / frames, 6) if served else None,
        "peak_rss_mb": round(row.peak_rss_bytes / 2**20, 1) if served else None,
        "verified": row.verified,
    }


def ratios(ways: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What the service is held to; None where a way was not measured.

    `overhead_vs_best_peer` compares like with like: the identity model, RGB24 bytes in and out, one client. From both
    medians the floor is taken away, which is the identity function called in-process. Peers are the frameworks' own
    APIs; an application that a framework merely hosts has a row, and is not counted as one.
    """
    found = {(way["model"], way["way"]): way for way in ways}

    def value(model: str, way: str, name: str) -> float | None:
        row = found.get((model, way))
        return None if row is None else row[name]

    def identity(way: str, name: str = "p50_ms") -> float | None:
        return value("identity", way, name)

    floor = identity("in_process")
    best = min((time for peer in _PEERS if (time := identity(peer)) is not None), default=None)
    cpu = "cpu_s_per_frame"
    return {
        "unary_rgb_vs_triton_bytes": _ratio(identity("gateway_unary_rgb24"), identity("triton_bytes")),
        "shm_vs_triton_shm": _ratio(identity("gateway_shm_rgb24"), identity("triton_shm")),
        "stream_runet_vs_ort": _ratio(
            value("runet", "gateway_stream_rgb24", "frames_per_s_1"), value("runet", "in_process", "frames_per_s_1")
        ),
        "cpu_nv12_vs_rgb": _ratio(identity("gateway_unary_nv12", cpu), identity("gateway_unary_rgb24", cpu)),
        "cpu_shm_vs_rgb": _ratio(identity("gateway_shm_rgb24", cpu), identity("gateway_unary_rgb24", cpu)),
        "overhead_vs_best_peer": _ratio(_less(identity("gateway_unary_rgb24"), floor), _less(best, floor)),
    }


def _less(value: float | None, floor: float | None) -> float | None:
    return None if value is None or floor is None else value - floor


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None or base <= 0 else round(value / base, 3)


def table(report: Mapping[str, Any], chart: str) -> str:
    """The report in Markdown; `chart` is where its picture is, as seen from the page."""
    lines = [
        f"{report['date']}, {report['device']}; tritonserver {report['versions']['tritonserver']}, ONNX Runtime "
        f"{report['versions']['onnxruntime']}, gRPC {report['versions']['grpcio']}.",
        "One 1080p frame to 4K at a time, every answer checked. The identity network costs nearly nothing: its rows",
        "are the serving alone. Clients and servers share the machine's cores.",
        "",
        f"    {report['command']}",
        "",
        f"![The time of a frame by every way]({chart})",
        "",
        "| ratio | value | wanted | of what |",
        "|---|---|---|---|",
    ]
    for name, (side, target) in TARGETS.items():
        value = report["ratios"][name]
        lines.append(
            f"| `{name}` | {'-' if value is None else f'{value:.2f}'} | {side} {target:g} | {_MEANING[name]} |"
        )
    for model, title in (("identity", "The identity network"), ("runet", "RUNet x2, by ONNX Runtime everywhere")):
        lines += [
            "",
            f"### {title}",
            "",
            "| way | p50 ms | p95 | p99 | frames/s | with 4 clients | CPU ms | with what is behind | peak RSS MB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for way in (way for way in report["ways"] if way["model"] == model):
            cpu, everything = (_scaled(way[name], 1000) for name in ("cpu_s_per_frame", "cpu_all_s_per_frame"))
            lines.append(
                f"| {way['label']} | {way['p50_ms']:.1f} | {way['p95_ms']:.1f} | {way['p99_ms']:.1f} "
                f"| {way['frames_per_s_1']:.1f} | {way['frames_per_s_4']:.1f} | {cpu} | {everything} "
                f"| {_scaled(way['peak_rss_mb'])} |"
            )
    lines += [
        "",
        "CPU is of the server that the client speaks to, for one frame (of a peer: of all its processes); `with what",
        "is behind` adds Triton and the model, and is all that counts where the client speaks to Triton.",
        "",
        "### More frames than there is room for",
        "",
        "Unary RGB24 calls to the gateway, identity network, frames offered by chance (Poisson) at a rate. A frame's",
        "time runs from the moment it was due.",
        "",
        "| offered/s | answered/s | answered | refused | failed | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['offered_per_s']:.1f} | {row['goodput_per_s']:.1f} | {row['answered']} | {row['refused']} "
        f"| {row['failed']} | {_scaled(row['p50_ms'])} | {_scaled(row['p99_ms'])} |"
        for row in report["open_loop"]
    ]
    return "\n".join(lines) + "\n"


def _scaled(value: float | None, factor: float = 1) -> str:
    return "-" if value is None else f"{factor * value:.1f}"


def write_page(page: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Put the table between its markers; the page is made, or the markers added at its end, where there are none."""
    old = page.read_text() if page.exists() else "# Performance\n"
    begin, end = markers
    if begin not in old or end not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    head, _, rest = old.partition(begin)
    _, _, tail = rest.partition(end)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{head}{begin}\n\n{text}\n{end}{tail}")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A chart of the median times, with the 99th percentile as whisker."""
    titles = {"identity": "identity network: the serving alone", "runet": "RUNet x2"}
    groups = {
        title: [(way["label"], way["p50_ms"], way["p99_ms"]) for way in report["ways"] if way["model"] == model]
        for model, title in titles.items()
    }
    bars(groups, path, title=f"{report['device']}, {report['date']}", x="ms for a frame, p50 and p99")
