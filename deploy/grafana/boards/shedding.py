"""What is refused, given up, or answered by a lesser network."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import HERE, OF, Query, over_time, row

_PROMISED = 0.005


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "shedding",
        "refusals and lesser networks",
        "Under too much load frames are refused at once, or answered by a lesser network: how many, which, and whose?",
        ["job", "instance", "variant"],
    )
    all_frames = panels.per_second("upscale_frames_total", OF)
    return (
        board.with_row(row("Refused and given up"))
        .with_panel(
            over_time(
                "Given up before the inference",
                "Frames a second: overloaded, budget_too_small and client_limit are refused at once; budget ran out "
                "in the queue; cancelled and superseded are the client's doing.",
                Query(panels.per_second("upscale_shed_total", OF, "reason"), "{{reason}}"),
                unit="suffix: /s",
                stacked=True,
                alert="UpscaleRefuses",
            )
        )
        .with_panel(
            over_time(
                "Share given up",
                "Of all frames, by reason.",
                Query(
                    f"{panels.per_second('upscale_shed_total', OF, 'reason')} / on () group_left () {all_frames}",
                    "{{reason}}",
                ),
                unit="percentunit",
                thresholds=panels.BAD_SHARE,
                alert="UpscaleRefuses",
            )
        )
        .with_panel(
            over_time(
                "By variant",
                "Frames a second that were given up before their inference, by the variant asked for and reason.",
                Query(panels.per_second("upscale_shed_total", OF, "variant, reason"), "{{variant}} {{reason}}"),
                unit="suffix: /s",
                alert="UpscaleRefuses",
            )
        )
        .with_panel(
            over_time(
                "Time until a refusal",
                "From a frame's arrival; 5 ms (the line) is promised, so that the client can still do something else.",
                Query(panels.quantile(0.5, "upscale_refusal_seconds", HERE), "p50"),
                Query(panels.quantile(0.99, "upscale_refusal_seconds", HERE), "p99"),
                unit="s",
                thresholds=((None, panels.GREEN), (_PROMISED, panels.RED)),
                alert="UpscaleRefusesLate",
            )
        )
        .with_row(row("Lesser networks"))
        .with_panel(
            over_time(
                "Stepped down",
                "Frames a second answered by a lesser variant than was asked for.",
                Query(
                    panels.per_second("upscale_stepped_down_total", OF, "asked, variant"), "{{asked}} by {{variant}}"
                ),
                unit="suffix: /s",
                alert="UpscaleStepsDown",
            )
        )
        .with_panel(
            over_time(
                "Share stepped down",
                "Of all answered frames; many for long means that there are too few instances for what is asked for.",
                Query(
                    f"{panels.per_second('upscale_stepped_down_total', OF)} / "
                    f"{panels.per_second('upscale_frames_total', panels.ANSWERED)}",
                    "stepped down",
                ),
                unit="percentunit",
                thresholds=((None, panels.GREEN), (0.2, panels.RED)),
                alert="UpscaleStepsDown",
            )
        )
        .with_row(row("Failed"))
        .with_panel(
            over_time(
                "Frames that were not answered",
                "By gRPC code: RESOURCE_EXHAUSTED is refused, DEADLINE_EXCEEDED ran out of time, UNAVAILABLE is "
                "Triton, INTERNAL is a bug or Triton; the others are the client's.",
                Query(panels.per_second("upscale_frames_total", f'code!="OK",{OF}', "code"), "{{code}}"),
                unit="suffix: /s",
                stacked=True,
                alert="UpscaleFramesFail",
            )
        )
        .with_panel(
            over_time(
                "Batches that failed",
                "Batches a second that a Triton endpoint did not answer; their frames may have been inferred "
                "elsewhere.",
                Query(
                    panels.per_second("upscale_batch_failures_total", OF, "endpoint, variant"),
                    "{{endpoint}} {{variant}}",
                ),
                unit="suffix: /s",
                alert="UpscaleTritonLeftAlone",
            )
        )
    )
