"""How frames wait, are put together, and what room there is for them."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import HERE, OF, Query, over_time, row


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "batching",
        "batching and queue",
        "Batches, the frames that wait for one, and the slots they lie in: is the device kept busy, and is there room?",
        ["job", "instance", "variant"],
    )
    return (
        board.with_row(row("Batches"))
        .with_panel(
            over_time(
                "Frames per batch",
                "Mean number of frames in a batch that went to Triton; near the largest batch means that the load is "
                "high.",
                Query(
                    f"{panels.per_second('upscale_batch_frames_sum', OF, 'variant')} / "
                    f"{panels.per_second('upscale_batch_frames_count', OF, 'variant')}",
                    "{{variant}}",
                ),
                unit="short",
                decimals=1,
            )
        )
        .with_panel(
            over_time(
                "Batches",
                "Batches a second that went to Triton.",
                Query(panels.per_second("upscale_batch_frames_count", OF, "variant"), "{{variant}}"),
                unit="suffix: /s",
            )
        )
        .with_panel(
            panels.spread(
                "Sizes of batches",
                "How many batches had how many frames.",
                f"sum by (le) (rate(upscale_batch_frames_bucket{{{OF}}}[$__rate_interval]))",
                unit="short",
            )
        )
        .with_panel(
            over_time(
                "What a batch is expected to take",
                "By variant, number of frames and endpoint, for the largest frames that have come: what the planner "
                "reckons with. The lines are a 60th and a 30th of a second.",
                Query(
                    f"max by (variant, frames, endpoint) (upscale_batch_predicted_seconds{{{OF}}})",
                    "{{variant}} x {{frames}}, {{endpoint}}",
                ),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
        .with_row(row("Queue"))
        .with_panel(
            over_time(
                "Waiting frames",
                "Frames that wait for an instance, by variant.",
                Query(f"sum by (variant) (upscale_queue_frames{{{OF}}})", "{{variant}}"),
                unit="short",
                stacked=True,
            )
        )
        .with_panel(
            over_time(
                "Time in the queue",
                "Of answered frames; the lines are a 60th and a 30th of a second.",
                *(
                    Query(
                        panels.quantile(share, "upscale_frame_seconds", f'stage="queue",{OF}', "variant"),
                        f"p{100 * share:.0f} {{{{variant}}}}",
                    )
                    for share in (0.5, 0.99)
                ),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
        .with_row(row("Room"))
        .with_panel(
            over_time(
                "Slots",
                "Frame slots in shared memory: no free ones means refusals; retired ones come back only by a restart.",
                Query(f"sum by (state) (upscale_slots{{{HERE}}})", "{{state}}"),
                unit="short",
                stacked=True,
                colours={"used": "blue", "free": "green", "retired": "red"},
                alert="UpscaleSlotsExhausted",
            )
        )
        .with_panel(
            over_time(
                "Frames in the gateway",
                "By gateway, with those in Triton and answers on their way; at max_inflight_frames the next is "
                "refused.",
                Query(f"upscale_inflight_frames{{{HERE}}}", "{{instance}}"),
                unit="short",
                alert="UpscaleSlotsExhausted",
            )
        )
        .with_panel(
            over_time(
                "Sessions and shared regions",
                "Sessions of UpscaleStream, and regions of memory that clients share, that are open.",
                Query(f"sum(upscale_sessions{{{HERE}}})", "sessions"),
                Query(f"sum(upscale_client_regions{{{HERE}}})", "regions"),
                unit="short",
            )
        )
        .with_panel(
            over_time(
                "Tasks",
                "Of the gateways' event loops; a number that only grows is a leak.",
                Query(f"upscale_tasks{{{HERE}}}", "{{instance}}"),
                unit="short",
            )
        )
    )
