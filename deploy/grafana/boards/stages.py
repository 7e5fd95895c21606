"""Where a frame's time goes: each stage by itself, and each variant's."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import OF, Query, over_time, row
from service.timing import STAGES

_MEANING = {
    "receive": "From the first header to the last byte of the message: long means the client's network, or a gateway "
    "whose event loop is busy.",
    "decode": "Into the slot: one copy for raw frames, Pillow in a thread for PNG, JPEG and WebP; long means too few "
    "codec threads or cores.",
    "queue": "Waiting for an instance: long means too few instances, or batches that take long.",
    "infer": "In Triton, there and back: long means a slow or shared device, a large batch, or frames that go as "
    "bytes.",
    "encode": "Out of the slot: nothing for raw frames, Pillow in a thread for the others; PNG takes longest.",
}


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "stages",
        "stages",
        "Where the time of answered frames goes. The stages follow each other without gaps, so they add up to the "
        "total.",
        ["job", "instance", "variant"],
    )
    stage = panels.PARTS
    board = (
        board.with_row(row("All stages"))
        .with_panel(
            over_time(
                "Where the time goes",
                "Mean time of an answered frame, stage on stage; the lines are a 60th and a 30th of a second.",
                Query(panels.mean_seconds("stage", stage), "{{stage}}"),
                unit="s",
                stacked=True,
                thresholds=panels.FRAME_TIME,
                colours=panels.STAGE_COLOURS,
                width=16,
                height=10,
            )
        )
        .with_panel(
            panels.bars(
                "Share of the time",
                "What part of all answered frames' time each stage takes.",
                Query(
                    f"{panels.per_second('upscale_frame_seconds_sum', stage, 'stage')} / on () group_left () "
                    f"{panels.per_second('upscale_frame_seconds_sum', stage)}",
                    "{{stage}}",
                ),
                unit="percentunit",
                thresholds=((None, panels.BLUE), (0.5, panels.ORANGE)),
                width=8,
            ).height(10)
        )
        .with_panel(
            over_time(
                "Mean time by variant",
                "Of an answered frame, from its first header to the answer.",
                Query(panels.mean_seconds("variant", panels.TOTAL), "{{variant}}"),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
        .with_panel(
            over_time(
                "Inference by variant",
                "Mean time in Triton of an answered frame.",
                Query(panels.mean_seconds("variant", f'stage="infer",{OF}'), "{{variant}}"),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
        .with_row(row("Each stage"))
    )
    for each in STAGES:
        board.with_panel(
            over_time(
                each,
                _MEANING[each],
                *(
                    Query(
                        panels.quantile(share, "upscale_frame_seconds", f'stage="{each}",{OF}'), f"p{100 * share:.0f}"
                    )
                    for share in (0.5, 0.95, 0.99)
                ),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
    return board.with_panel(
        over_time(
            "Event loop",
            "How late the gateway's event loop comes to its own timer: what it lacks in time, every stage pays.",
            Query(panels.quantile(0.5, "upscale_loop_lag_seconds", panels.HERE), "p50"),
            Query(panels.quantile(0.99, "upscale_loop_lag_seconds", panels.HERE), "p99"),
            unit="s",
            thresholds=((None, panels.GREEN), (0.02, panels.RED)),
            alert="UpscaleEventLoopSlow",
        )
    )
