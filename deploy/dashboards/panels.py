"""Builders of panels, rows and the dashboard, with links to runbooks.

Prometheus can scrape several processes of Runway with the same state. Queries take the max of gauges and the sum of
counters, as the alerts do.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    VizOrientation,
)

DOCUMENTS: Final = "https://github.com/example-org/runway/blob/main/docs"
"""example-org is a placeholder, as in prometheusrule.yaml: replace it by the address of your runbooks."""
RUNBOOKS: Final = f"{DOCUMENTS}/runbooks.md"
SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

Query: TypeAlias = tuple[str, str]
"""PromQL and the legend of its series; {{label}} is the value of a label."""
Steps: TypeAlias = tuple[tuple[float | None, str], ...]
"""Lower bounds and their colours; the first has the bound None."""
Panel: TypeAlias = timeseries.Panel | stat.Panel | bargauge.Panel
Row: TypeAlias = tuple[str, Sequence[Panel]]

PLAIN: Final[Steps] = ((None, "blue"),)
MUST_BE_ONE: Final[Steps] = ((None, "red"), (1, "green"))

SELECTED: Final = 'tenant=~"$tenant"'
"""The tenants that the user selects."""
OWN_REFUSALS: Final = "kubernetes_unavailable|outcome_unknown|not_ready|too_busy|internal_error"
"""Outcomes without a fault of a tenant, as in the alert RunwaySubmissionsFailing."""


def rising(orange: float, red: float) -> Steps:
    """Return green, orange and red for rising values."""
    return (None, "green"), (orange, "orange"), (red, "red")


def see(*alerts: str) -> str:
    """Link to the runbooks of these alerts."""
    links = ", ".join(f"[{alert}]({RUNBOOKS}#{alert.lower()})" for alert in alerts)
    return f"Runbook: {links}."


def or_none_yet(expression: str) -> str:
    """Return 0 for a counter that has no series yet. The result is empty without a running Runway."""
    return f"({expression} or 0 * max(runway_synced))"


def number(title: str, text: str, unit: str, query: Query, steps: Steps = PLAIN, *, words: bool = False) -> stat.Panel:
    """Show the current value; `words` shows 1 as yes and 0 as no."""
    panel = (
        stat.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .datasource(SOURCE)
        .height(4)
        .span(4)
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
        .color_mode(BigValueColorMode.BACKGROUND if len(steps) > 1 else BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(0, query).instant())
    )
    if words:
        yes, no = models.ValueMappingResult(text="yes", index=0), models.ValueMappingResult(text="no", index=1)
        panel.mappings([models.ValueMap(options={"1": yes, "0": no})])
    return panel


def bars(title: str, text: str, unit: str, query: Query, steps: Steps = PLAIN, *, full: float | None = None) -> Panel:
    """Show a bar with the current value of each series; `full` is the value of a full bar."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .datasource(SOURCE)
        .height(8)
        .span(12)
        .min(0)
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(0, query).instant())
    )
    return panel if full is None else panel.max(full)


def graph(title: str, text: str, unit: str, *queries: Query, steps: Steps = PLAIN) -> timeseries.Panel:
    """Show lines over time, and thresholds as dashed lines."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .unit(unit)
        .datasource(SOURCE)
        .height(8)
        .span(12)
        .min(0)
        .line_width(1)
        .fill_opacity(5)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(_steps(steps)))
    )
    if len(steps) > 1:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    for index, query in enumerate(queries):
        panel.with_target(_target(index, query).range())
    return panel


def assemble(
    uid: str, title: str, text: str, rows: Sequence[Row], *variables: builders.QueryVariable
) -> models.Dashboard:
    """Build the dashboard: the data source and the other variables, then the rows."""
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["runway"])
        .timezone("browser")
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(builders.DashboardLink("Runbooks").type(models.DashboardLinkType.LINK).url(RUNBOOKS).target_blank(True))
    )
    for variable in variables:
        made.with_variable(variable)
    ids = itertools.count(1)
    for name, panels in rows:
        made.with_row(builders.Row(name).id(next(ids)))
        for panel in panels:
            made.with_panel(panel.id(next(ids)))
    return made.build()


def choice(name: str, label: str, values: str) -> builders.QueryVariable:
    """Let the user select one, several or all values that Prometheus has, for {label=~"$name"}."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .query(values)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def _steps(steps: Steps) -> list[models.Threshold]:
    return [models.Threshold(value=value, color=color) for value, color in steps]


def _target(index: int, query: Query) -> prometheus.Dataquery:
    expression, legend = query
    return (
        prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + index)).datasource(SOURCE)
    )
