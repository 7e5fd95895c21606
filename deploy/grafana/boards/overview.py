"""The one to open at night. It answers: are we inside the budget, and if not, which stage ate it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import HERE, LE_60, OF, Query, number, over_time, row


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "overview",
        "overview",
        "Are we inside the budget, and if not, which stage ate it? From left to right and from top to bottom; the "
        "other dashboards (link above) have the details.",
        ["job", "instance", "variant"],
    )
    inside = {
        name: f"1 - {panels.per_second('upscale_budget_misses_total', selector)} / "
        f"{panels.per_second('upscale_frame_seconds_count', panels.TOTAL)}"
        for name, selector in (("60fps", f'budget="60fps",{OF}'), ("30fps", f'budget="30fps",{OF}'))
    }
    return (
        board.with_row(row("Are we inside the budget?"))
        .with_panel(
            number(
                "Inside the budget asked for",
                "Share of the live frames with a budget that were answered within it in the last 5 minutes; refused "
                "and failed ones count as missed. The objective is 99 %.",
                Query('1 - job:upscale_slo_missed:ratio_rate5m{job=~"$job"}', "{{job}}"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                decimals=2,
                alert="UpscaleBudgetBurnsFast",
            )
        )
        .with_panel(
            number(
                "Burn rate, 1 hour",
                "How many times faster than allowed frames miss their budget: at 1 the month's error budget lasts the "
                "month, at 14.4 two days.",
                Query(f'job:upscale_slo_missed:ratio_rate1h{{job=~"$job"}} / {1 - panels.TARGET:.2g}', "{{job}}"),
                unit="suffix: x",
                thresholds=panels.BURN,
                decimals=1,
                alert="UpscaleBudgetBurnsFast",
            )
        )
        .with_panel(
            number(
                "Inside 16.7 ms",
                "Share of the answered frames that took no longer than one of 60 a second, whatever they asked for.",
                Query(inside["60fps"], "16.7 ms"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                decimals=1,
            )
        )
        .with_panel(
            number(
                "Inside 33.3 ms",
                "Share of the answered frames that took no longer than one of 30 a second, whatever they asked for.",
                Query(inside["30fps"], "33.3 ms"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                decimals=1,
            )
        )
        .with_panel(
            number(
                "99th percentile",
                "So long at most took 99 of 100 answered frames, from the first header to the answer's last byte.",
                Query(panels.quantile(0.99, "upscale_frame_seconds", panels.TOTAL), "p99"),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
        .with_panel(
            number(
                "Answered",
                "Frames answered a second, by any method.",
                Query(panels.per_second("upscale_frames_total", panels.ANSWERED), "frames"),
                unit="suffix: /s",
                thresholds=panels.PLAIN,
                alert="UpscaleNoTraffic",
            )
        )
        .with_panel(
            number(
                "Not answered",
                "Share of all frames that were refused or failed, for whatever reason; the client's own mistakes too.",
                Query(
                    f"1 - {panels.per_second('upscale_frames_total', panels.ANSWERED)} / "
                    f"{panels.per_second('upscale_frames_total', OF)}",
                    "not answered",
                ),
                unit="percentunit",
                thresholds=panels.BAD_SHARE,
                decimals=1,
                alert="UpscaleFramesFail",
            )
        )
        .with_panel(
            number(
                "Lesser networks",
                "Share of the answered frames that a lesser network of the ladder answered, because there was no time "
                "for the one asked for.",
                Query(
                    # Its counter is there only once a frame stepped down.
                    f"({panels.per_second('upscale_stepped_down_total', OF)} or vector(0)) / "
                    f"{panels.per_second('upscale_frames_total', panels.ANSWERED)}",
                    "stepped down",
                ),
                unit="percentunit",
                thresholds=((None, panels.GREEN), (0.05, panels.ORANGE), (0.2, panels.RED)),
                decimals=1,
                alert="UpscaleStepsDown",
            )
        )
        .with_panel(
            over_time(
                "Inside the budget",
                "Share of frames in time: of live ones against the budget asked for, of all answered ones against a "
                "60th and a 30th of a second. The line is the objective.",
                Query('1 - job:upscale_slo_missed:ratio_rate5m{job=~"$job"}', "asked for ({{job}})"),
                Query(inside["60fps"], "16.7 ms"),
                Query(inside["30fps"], "33.3 ms"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                most=1,
                alert="UpscaleBudgetBurnsFast",
            )
        )
        .with_panel(panels.alerts())
        .with_row(row("Which stage ate it?"))
        .with_panel(
            over_time(
                "Where the time goes",
                "Mean time of an answered frame, stage on stage; the lines are a 60th and a 30th of a second.",
                Query(panels.mean_seconds("stage", panels.PARTS), "{{stage}}"),
                unit="s",
                stacked=True,
                thresholds=panels.FRAME_TIME,
                colours=panels.STAGE_COLOURS,
            )
        )
        .with_panel(
            panels.bars(
                "Alone too long",
                "Share of the answered frames for which this stage by itself took more than 16.7 ms. The longest bar "
                "ate the budget.",
                Query(
                    f'1 - sum by (stage) (rate(upscale_frame_seconds_bucket{{stage!="total",le="{LE_60}",{OF}}}'
                    "[$__rate_interval])) / sum by (stage) "
                    f'(rate(upscale_frame_seconds_count{{stage!="total",{OF}}}[$__rate_interval]))',
                    "{{stage}}",
                ),
                unit="percentunit",
                thresholds=panels.BAD_SHARE,
                width=6,
            )
        )
        .with_panel(
            panels.bars(
                "Longer than usual",
                "A stage's mean time now, as a multiple of its mean over the whole time shown: what has just become "
                "slow stands out.",
                Query(
                    f"({panels.mean_seconds('stage', panels.PARTS)}) / "
                    f"({panels.mean_seconds('stage', panels.PARTS).replace('$__rate_interval', '$__range')})",
                    "{{stage}}",
                ),
                unit="suffix: x",
                thresholds=((None, panels.GREEN), (1.5, panels.ORANGE), (3, panels.RED)),
                width=6,
            )
        )
        .with_row(row("Why?"))
        .with_panel(
            number(
                "Tritons away",
                "Triton endpoints that a gateway knows and cannot reach.",
                Query(f"sum(1 - min by (endpoint) (upscale_triton_up{{{HERE}}}))", "away"),
                unit="short",
                thresholds=((None, panels.GREEN), (1, panels.RED)),
                alert="UpscaleTritonDown",
            )
        )
        .with_panel(
            number(
                "Gateways not ready",
                "Gateway processes that should be and cannot answer frames.",
                Query(f"sum(upscale_workers{{{HERE}}}) - sum(upscale_ready{{{HERE}}})", "not ready"),
                unit="short",
                thresholds=((None, panels.GREEN), (1, panels.RED)),
                alert="UpscaleWorkerDown",
            )
        )
        .with_panel(
            number(
                "Free slots",
                "Of the gateway with the fewest; with none free, the next frame is refused.",
                Query(f'min(upscale_slots{{state="free",{HERE}}})', "free"),
                unit="short",
                thresholds=((None, panels.RED), (1, panels.ORANGE), (3, panels.GREEN)),
                alert="UpscaleSlotsExhausted",
            )
        )
        .with_panel(
            number(
                "Waiting",
                "Frames that wait for an instance, in all gateways.",
                Query(f"sum(upscale_queue_frames{{{OF}}})", "waiting"),
                unit="short",
                thresholds=panels.PLAIN,
            )
        )
        .with_panel(
            over_time(
                "Given up before the inference",
                "Frames a second by reason: overloaded and budget_too_small were refused at once, budget ran out in "
                "the queue, cancelled and superseded are the client's doing.",
                Query(panels.per_second("upscale_shed_total", OF, "reason"), "{{reason}}"),
                unit="suffix: /s",
                alert="UpscaleRefuses",
            )
        )
    )
