"""Who asks for what: frames by variant, method and code, and the calls they come in."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import HERE, OF, Query, over_time, row


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "traffic",
        "traffic",
        "Frames by network, method and outcome, and the calls that they come in.",
        ["job", "instance", "variant"],
    )
    return (
        board.with_row(row("Frames"))
        .with_panel(
            over_time(
                "By variant",
                "Frames a second, answered or not; without a name are those for which no variant was chosen.",
                Query(panels.per_second("upscale_frames_total", OF, "variant"), "{{variant}}"),
                unit="suffix: /s",
                stacked=True,
                alert="UpscaleNoTraffic",
            )
        )
        .with_panel(
            panels.bars(
                "Share of the variants",
                "Of the frames answered now.",
                Query(
                    f"{panels.per_second('upscale_frames_total', panels.ANSWERED, 'variant')} / on () group_left () "
                    f"{panels.per_second('upscale_frames_total', panels.ANSWERED)}",
                    "{{variant}}",
                ),
                unit="percentunit",
                thresholds=panels.PLAIN,
            )
        )
        .with_panel(
            over_time(
                "By method",
                "Frames a second: single ones (Upscale), those of sessions (UpscaleStream).",
                Query(panels.per_second("upscale_frames_total", OF, "method"), "{{method}}"),
                unit="suffix: /s",
                stacked=True,
            )
        )
        .with_panel(
            over_time(
                "By code",
                "Frames a second by gRPC code; OK are the answered ones.",
                Query(panels.per_second("upscale_frames_total", OF, "code"), "{{code}}"),
                unit="suffix: /s",
                colours={"OK": "green"},
                alert="UpscaleFramesFail",
            )
        )
        .with_panel(
            over_time(
                "By gateway",
                "Frames a second of each gateway: a load balancer that does not spread them shows here.",
                Query(panels.per_second("upscale_frames_total", OF, "instance"), "{{instance}}"),
                unit="suffix: /s",
                alert="UpscaleGatewayDown",
            )
        )
        .with_panel(
            over_time(
                "Time in Triton",
                "Seconds of frames in Triton for every second: a variant's part of the load.",
                Query(panels.per_second("upscale_frame_seconds_sum", f'stage="infer",{OF}', "variant"), "{{variant}}"),
                unit="short",
                stacked=True,
            )
        )
        .with_row(row("Calls"))
        .with_panel(
            over_time(
                "Begun",
                "Calls a second by method; a session is one call.",
                Query(panels.per_second("grpc_server_started_total", HERE, "grpc_method"), "{{grpc_method}}"),
                unit="suffix: /s",
            )
        )
        .with_panel(
            over_time(
                "Ended",
                "Calls a second by method and gRPC code.",
                Query(
                    panels.per_second("grpc_server_handled_total", HERE, "grpc_method, grpc_code"),
                    "{{grpc_method}} {{grpc_code}}",
                ),
                unit="suffix: /s",
                alert="UpscaleFramesFail",
            )
        )
        .with_panel(
            over_time(
                "Open",
                "Calls that have begun and not ended.",
                Query(
                    f"sum by (grpc_method) (grpc_server_started_total{{{HERE}}}) - "
                    f"sum by (grpc_method) (grpc_server_handled_total{{{HERE}}})",
                    "{{grpc_method}}",
                ),
                unit="short",
            )
        )
        .with_panel(
            over_time(
                "Time of a call",
                "So long at most took 99 of 100 calls, from the first header to the end.",
                Query(panels.quantile(0.99, "grpc_server_handling_seconds", HERE, "grpc_method"), "{{grpc_method}}"),
                unit="s",
            )
        )
        .with_row(row("Gateways"))
        .with_panel(
            over_time(
                "Ready",
                "Gateway processes that can answer frames, and those that there should be.",
                Query(f"sum(upscale_ready{{{HERE}}})", "ready"),
                Query(f"sum(upscale_workers{{{HERE}}})", "should be"),
                unit="short",
                alert="UpscaleWorkerDown",
            )
        )
        .with_panel(
            over_time(
                "Age",
                "Since the last of a gateway's processes began; a fall to 0 is a restart.",
                Query(f"time() - upscale_started_timestamp_seconds{{{HERE}}}", "{{instance}}"),
                unit="s",
                alert="UpscaleGatewayRestarts",
            )
        )
        .with_panel(
            over_time(
                "Versions",
                "Gateways by version: more than one only during an upgrade.",
                Query(f"count by (version) (upscale_build_info{{{HERE}}})", "{{version}}"),
                unit="short",
                stacked=True,
            )
        )
    )
