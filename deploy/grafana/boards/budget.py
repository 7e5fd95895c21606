"""The objective: how many frames are in time, how fast the error budget goes, and what becomes of the others."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana import panels
from deploy.grafana.panels import OF, Query, number, over_time, row

_ALLOWED = f"{1 - panels.TARGET:.2g}"
_OF_ONES_OWN = 'priority="live",' + OF


def _inside(budget: str) -> Query:
    misses = panels.per_second("upscale_budget_misses_total", f'budget="{budget}",{OF}', "variant")
    answered = panels.per_second("upscale_frame_seconds_count", panels.TOTAL, "variant")
    return Query(f"1 - {misses} / {answered}", "{{variant}}")


def build() -> dashboard.Dashboard:
    """The dashboard."""
    board = panels.board(
        "budget",
        "budget",
        "The objective is 99 % of the live frames inside the budget that they asked for, over 30 days: how far are we?",
        ["job", "instance", "variant"],
    )
    missed = _OF_ONES_OWN + ',outcome=~"late|refused|spent|failed"'
    counted = _OF_ONES_OWN + ',outcome=~"met|late|refused|spent|failed"'
    return (
        board.with_row(row("The objective (all gateways and variants of a job)"))
        .with_panel(
            number(
                "Inside the budget, 30 days",
                "Share of the live frames with a budget that were answered within it.",
                Query('1 - job:upscale_slo_missed:ratio_rate30d{job=~"$job"}', "{{job}}"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                decimals=3,
                width=4,
                alert="UpscaleBudgetBurnsSlowly",
            )
        )
        .with_panel(
            number(
                "Error budget left, 30 days",
                "Of the 1 % of frames that may miss their budget within 30 days, so much has not yet been used.",
                Query(f'1 - job:upscale_slo_missed:ratio_rate30d{{job=~"$job"}} / {_ALLOWED}', "{{job}}"),
                unit="percentunit",
                thresholds=((None, panels.RED), (0, panels.ORANGE), (0.25, panels.GREEN)),
                decimals=1,
                width=4,
                alert="UpscaleBudgetBurnsSlowly",
            )
        )
        .with_panel(
            over_time(
                "Burn rate",
                "How many times faster than allowed frames miss their budget, over several windows. Above 14.4 (1 h "
                "and 5 min) or 6 (6 h and 30 min) somebody is called.",
                *(
                    Query(
                        f'job:upscale_slo_missed:ratio_rate{window}{{job=~"$job"}} / {_ALLOWED}',
                        f"{window} ({{{{job}}}})",
                    )
                    for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
                ),
                unit="suffix: x",
                width=16,
                thresholds=panels.BURN,
                alert="UpscaleBudgetBurnsFast",
            )
        )
        .with_row(row("What becomes of live frames with a budget"))
        .with_panel(
            over_time(
                "How they end",
                "Frames a second: met and late were answered; refused is overload; spent ran out of time in the queue; "
                "failed is Triton or the gateway; too_small and void are not counted against the objective.",
                Query(panels.per_second("upscale_budget_frames_total", _OF_ONES_OWN, "outcome"), "{{outcome}}"),
                unit="suffix: /s",
                stacked=True,
                colours=panels.OUTCOME_COLOURS,
            )
        )
        .with_panel(
            over_time(
                "Missed, by the variant asked for",
                "Share of the live frames with a budget that were not answered within it.",
                Query(
                    f"{panels.per_second('upscale_budget_frames_total', missed, 'variant')} / "
                    f"{panels.per_second('upscale_budget_frames_total', counted, 'variant')}",
                    "{{variant}}",
                ),
                unit="percentunit",
                thresholds=panels.BAD_SHARE,
                alert="UpscaleBudgetBurnsFast",
            )
        )
        .with_panel(
            over_time(
                "Budgets too small",
                "Frames a second whose budget even an idle service could not meet: a client's wish, or a network that "
                "has become slow.",
                Query(
                    panels.per_second("upscale_budget_frames_total", f'outcome="too_small",{OF}', "variant"),
                    "{{variant}}",
                ),
                unit="suffix: /s",
                alert="UpscaleBudgetsTooSmall",
            )
        )
        .with_panel(
            over_time(
                "Frames that ask for a budget",
                "Share of all frames that name a budget, by priority; the objective says nothing of the others.",
                Query(
                    f"{panels.per_second('upscale_budget_frames_total', OF, 'priority')} / on () group_left () "
                    f"{panels.per_second('upscale_frames_total', OF)}",
                    "{{priority}}",
                ),
                unit="percentunit",
                most=1,
            )
        )
        .with_row(row("Answered frames, whatever they asked for"))
        .with_panel(
            over_time(
                "Inside 16.7 ms, by variant",
                "Share of the answered frames that took no longer than one of 60 a second.",
                _inside("60fps"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                most=1,
            )
        )
        .with_panel(
            over_time(
                "Inside 33.3 ms, by variant",
                "Share of the answered frames that took no longer than one of 30 a second.",
                _inside("30fps"),
                unit="percentunit",
                thresholds=panels.GOOD_SHARE,
                most=1,
            )
        )
        .with_panel(
            over_time(
                "Time of a frame",
                "Half, 95 and 99 of 100 answered frames took at most so long; the lines are a 60th and a 30th of a "
                "second.",
                *(
                    Query(panels.quantile(share, "upscale_frame_seconds", panels.TOTAL), f"p{100 * share:.0f}")
                    for share in (0.5, 0.95, 0.99)
                ),
                unit="s",
                thresholds=panels.FRAME_TIME,
            )
        )
        .with_panel(
            panels.spread(
                "Times of frames",
                "How many answered frames took how long; two bands are two kinds of frames, or a queue.",
                f'sum by (le) (rate(upscale_frame_seconds_bucket{{stage="total",{OF}}}[$__rate_interval]))',
                unit="s",
            )
        )
    )
