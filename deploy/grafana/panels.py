"""What every dashboard is made of: variables, and panels of a few kinds that all look and read the same.

A panel says what it shows in one line, in a unit, with thresholds where there is a good and a bad; where an alert
belongs to it, it links to what the runbook says of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import text as text_panel
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from prometheus_client.utils import floatToGoString

from deploy.grafana import runbook
from service.metrics import BUDGETS
from service.timing import STAGES

HERE = 'job=~"$job",instance=~"$instance"'
"""The chosen gateways' series."""
OF = HERE + ',variant=~"$variant"'
"""Those of the chosen variants."""
ANSWERED = 'code="OK",' + OF
"""Of these, the frames that were answered."""
TOTAL = 'stage="total",' + OF
"""Their whole times."""
PARTS = 'stage!="total",' + OF
"""The times of their stages."""
TRITON = 'job=~"$triton_job",instance=~"$triton"'
"""The chosen Tritons' series."""
FRAME_60, FRAME_30 = BUDGETS["60fps"], BUDGETS["30fps"]
LE_60 = floatToGoString(FRAME_60)
"""The bucket of a 60th of a second."""
TARGET = 0.99
"""Of the live frames with a budget, so many are to be answered within it (docs/operations.md)."""
GPU_ROW = "GPU (only where there is one)"
"""Triton gives what is in this row only on a machine with an NVIDIA GPU."""

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
STAGE_COLOURS: dict[str, str] = dict(zip(STAGES, ("blue", "purple", "orange", "green", "yellow"), strict=True))
OUTCOME_COLOURS = {
    "met": "green",
    "late": "yellow",
    "refused": "orange",
    "spent": "purple",
    "failed": "red",
    "too_small": "blue",
    "void": "text",
}
GOOD_SHARE = ((None, RED), (0.95, ORANGE), (TARGET, GREEN))
BAD_SHARE = ((None, GREEN), (0.01, ORANGE), (0.05, RED))
BURN = ((None, GREEN), (1, YELLOW), (6, ORANGE), (14.4, RED))
FRAME_TIME = ((None, GREEN), (FRAME_60, YELLOW), (FRAME_30, RED))
PLAIN = ((None, BLUE),)

_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_DASHED = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
Steps = Sequence[tuple[float | None, str]]
P = TypeVar("P", timeseries.Panel, stat.Panel, bargauge.Panel, heatmap.Panel, table.Panel)


class Query(NamedTuple):
    """What Prometheus is asked, and what its series are called."""

    expr: str
    legend: str


def over_time(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    thresholds: Steps = PLAIN,
    colours: dict[str, str] | None = None,
    least: float | None = 0,
    most: float | None = None,
    decimals: int | None = None,
    alert: str = "",
) -> timeseries.Panel:
    """Lines over time, or areas one on another; thresholds are dashed lines."""
    panel = (
        _common(timeseries.Panel(), title, description, queries, unit, thresholds, alert)
        .span(width)
        .height(height)
        .line_width(1)
        .fill_opacity(60 if stacked else 5)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "mean", "max"])
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    if len(thresholds) > 1:
        panel.thresholds_style(_DASHED)
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if decimals is not None:
        panel.decimals(decimals)
    for name, colour in (colours or {}).items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    thresholds: Steps,
    width: int = 3,
    decimals: int | None = None,
    alert: str = "",
) -> stat.Panel:
    """One number, now, on its threshold's colour."""
    panel = (
        _common(stat.Panel(), title, description, [query], unit, thresholds, alert)
        .span(width)
        .height(4)
        .color_mode(kinds.BigValueColorMode.BACKGROUND)
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return panel if decimals is None else panel.decimals(decimals)


def bars(
    title: str, description: str, query: Query, *, unit: str, thresholds: Steps, width: int = 12, alert: str = ""
) -> bargauge.Panel:
    """One bar for each series, as it is now."""
    return (
        _common(bargauge.Panel(), title, description, [query], unit, thresholds, alert)
        .span(width)
        .height(8)
        .min(0)
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def spread(title: str, description: str, expr: str, *, unit: str, width: int = 12) -> heatmap.Panel:
    """How a histogram's values are spread, over time."""
    query = prometheus.Dataquery().expr(expr).legend_format("{{le}}").format(PromQueryFormat.HEATMAP).range()
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .with_target(query.ref_id("A"))
        .span(width)
        .height(8)
        .unit(unit)
        .thresholds(_steps(PLAIN))
        .no_value("no frames")
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues"))
        .show_legend()
    )


def alerts(width: int = 12) -> table.Panel:
    """The alerts that fire, or are about to."""
    query = Query('ALERTS{alertname=~"Upscale.*",alertstate=~"pending|firing"}', "{{alertname}}")
    hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
    panel = _common(
        table.Panel(),
        "Alerts",
        "The service's alerts that fire, or will if it goes on; what to do is in the runbook.",
        [],
        "short",
        PLAIN,
        "",
    )
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).format(PromQueryFormat.TABLE)
    return (
        panel.with_target(target.instant().ref_id("A"))
        .span(width)
        .height(8)
        .no_value("none")
        .links([_link("Runbook", runbook.url())])
        .with_transformation(
            models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden, "indexByName": {}})
        )
    )


def words(title: str, markdown: str, panel_id: int, height: int) -> text_panel.Panel:
    """A text."""
    return text_panel.Panel().id(panel_id).title(title).content(markdown).span(24).height(height).transparent(True)


def row(title: str) -> dashboard.Row:
    """A heading; the panels after it are under it."""
    return dashboard.Row(title)


def board(name: str, title: str, description: str, variables: Sequence[str] = ()) -> dashboard.Dashboard:
    """An empty dashboard.

    Args:
        name: its file's, and in its address.
        title: as Grafana lists it.
        description: whom it is for.
        variables: names of `_VARIABLES`, after the data source.
    """
    new = (
        dashboard.Dashboard(f"Upscaling: {title}")
        .uid(f"upscale-{name}")
        .description(description)
        .tags([runbook.TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Upscaling")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([runbook.TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    if not variables:
        return new
    new.time("now-1h", "now").refresh("30s")
    new.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in variables:
        label, query = _VARIABLES[variable]
        new.with_variable(
            dashboard.QueryVariable(variable)
            .label(label)
            .datasource(_DATASOURCE)
            .query(query)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")  # not the list of those there are: a frame that was not understood has no variant
            .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
    return new


_VARIABLES = {
    "job": ("Job", "label_values(upscale_build_info, job)"),
    "instance": ("Gateway", 'label_values(upscale_build_info{job=~"$job"}, instance)'),
    "variant": ("Variant", f"label_values(upscale_frames_total{{{HERE}}}, variant)"),
    "triton_job": ("Triton's job", "label_values(nv_inference_request_success, job)"),
    "triton": ("Triton", 'label_values(nv_inference_request_success{job=~"$triton_job"}, instance)'),
    "model": ("Model", f"label_values(nv_inference_request_success{{{TRITON}}}, model)"),
}


def mean_seconds(by: str, selector: str) -> str:
    """The mean seconds of a frame in a stage, by these labels."""
    name = f"upscale_frame_seconds_{{part}}{{{{{selector}}}}}"
    parts = [f"sum by ({by}) (rate({name.format(part=part)}[$__rate_interval]))" for part in ("sum", "count")]
    return " / ".join(parts)


def quantile(share: float, histogram: str, selector: str, by: str = "") -> str:
    """So large a share of a histogram's values is at most this."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({histogram}_bucket{{{selector}}}[$__rate_interval])))"


def per_second(counter: str, selector: str, by: str = "", window: str = "$__rate_interval") -> str:
    """How fast a counter grows, by these labels."""
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({counter}{{{selector}}}[{window}]))"


def _common(
    panel: P, title: str, description: str, queries: Sequence[Query], unit: str, thresholds: Steps, alert: str
) -> P:
    panel.title(title).description(description).datasource(_DATASOURCE).unit(unit).thresholds(_steps(thresholds))
    panel.no_value("no data")
    for number, query in enumerate(queries):
        panel.with_target(
            prometheus.Dataquery().expr(query.expr).legend_format(query.legend).range().ref_id(chr(ord("A") + number))
        )
    if alert:
        panel.links([_link(f"Runbook: {alert}", runbook.url(alert))])
    return panel


def _steps(steps: Steps) -> dashboard.ThresholdsConfig:
    made = [models.Threshold(value, colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made)


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(models.DashboardLinkType.LINK).url(url).target_blank(True)
