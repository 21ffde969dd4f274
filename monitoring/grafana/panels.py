"""The kinds of panels that our dashboards are made of, and the sheet that they lie on.

A number is the last value of a range query, with its course behind it. Words and bars are of this
moment only: what was an hour ago is none of theirs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, prometheus, statetimeline, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import stat as stat_builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

TAG = "ctpeer"
DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

RUN = 'run=~"$run"'
RATE = "[$__rate_interval]"
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
Steps = Sequence[tuple[float | None, str]]
"""Colours, each from a value on; the first from None on."""
PLAIN: Steps = ((None, BLUE),)

_SMALL = {"s", "suffix:nats", "percentunit"}
"""Units in which less than one is a lot; of all others an axis reaches to one at least."""
_STAT_HEIGHT = 4
_PANEL_HEIGHT = 8
_WIDTH = 24


@dataclasses.dataclass(frozen=True)
class Panel:
    """A panel with its place in a row.

    Attributes:
        builder: Grafana's builder of it, which differs by kind.
        width: In twenty-fourths of the sheet.
        height: In lines of the grid.
    """

    builder: Any
    width: int
    height: int


def or_none(query: str, label: str) -> str:
    """Return `query`, or a zero with "none" for its `label` where it finds nothing."""
    return f'{query} or on () label_replace(vector(0), "{label}", "none", "", "")'


def by_peer(query: str) -> str:
    """Return `query` summed by peer, with the end of each peer id as the label `peer`.

    Beginnings of peer ids are alike, and whole ones fill a legend.
    """
    short = f'label_replace(sum by (peer_id) ({query}), "peer", "$1", "peer_id", ".*?(.{{1,12}})")'
    return or_none(short, "peer")


def stat(
    title: str,
    query: str,
    description: str,
    *,
    unit: str = "short",
    decimals: int | None = None,
    steps: Steps = PLAIN,
    legend: str | None = None,
) -> Panel:
    """Return one number, large; or a word, if `legend` names the label that holds it."""
    panel = (
        stat_builder.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .justify_mode(common_models.BigValueJustifyMode.CENTER)
        .orientation(common_models.VizOrientation.AUTO)
    )
    if legend is not None:
        panel.graph_mode(common_models.BigValueGraphMode.NONE)
        panel.text_mode(common_models.BigValueTextMode.NAME)
    _describe(panel, title, description, {legend or title: query}, now=legend is not None)
    _scale(panel, unit, decimals, steps)
    return Panel(panel, 3, _STAT_HEIGHT)


def lines(
    title: str,
    queries: Mapping[str, str],
    description: str,
    *,
    unit: str = "short",
    stacked: bool = False,
    steps: Steps | None = None,
    width: int = 8,
) -> Panel:
    """Return curves over time, one a series, by legend; a line marks where `steps` change."""
    panel = (
        timeseries.Panel()
        .draw_style(common_models.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(30 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        .axis_soft_min(0)
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if unit not in _SMALL:
        panel.axis_soft_max(1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if steps is not None:
        dashed = common_models.GraphThresholdsStyleMode.DASHED
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    _describe(panel, title, description, queries)
    _scale(panel, unit, None, steps or ((None, GREEN),))
    return Panel(panel, width, _PANEL_HEIGHT)


def bars(
    title: str,
    queries: Mapping[str, str],
    description: str,
    *,
    unit: str = "short",
    steps: Steps = PLAIN,
    width: int = 8,
) -> Panel:
    """Return the last value of every series as a bar."""
    panel = (
        bargauge.Panel()
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .value_mode(common_models.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .min(0)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields(""))
    )
    _describe(panel, title, description, queries, now=True)
    _scale(panel, unit, None, steps)
    return Panel(panel, width, _PANEL_HEIGHT)


def timeline(title: str, queries: Mapping[str, str], description: str, width: int) -> Panel:
    """Return one strip a series, coloured while it is 1."""
    on = models.ValueMap(
        options={
            "0": models.ValueMappingResult(text=" ", color="transparent", index=0),
            "1": models.ValueMappingResult(text="yes", color=GREEN, index=1),
        }
    )
    panel = (
        statetimeline.Panel()
        .show_value(common_models.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .mappings([on])
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(False)
        )
    )
    _describe(panel, title, description, queries)
    _scale(panel, "short", None, ((None, BLUE),))
    return Panel(panel, width, _PANEL_HEIGHT)


class Sheet:
    """A dashboard in the making: a row of numbers, then named rows of panels.

    Args:
        uid: Names it in links; stays the same for ever.
        title: What a person reads.
        description: What it answers.
    """

    def __init__(self, uid: str, title: str, description: str) -> None:
        self._next_id = 1
        self._sheet = (
            build.Dashboard(title)
            .uid(uid)
            .description(description)
            .tags([TAG])
            .timezone("browser")
            .refresh("30s")
            .time("now-1h", "now")
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .editable()
            .link(
                build.DashboardLink("Other dashboards of ctpeer")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(False)
                .include_vars(True)
                .keep_time(True)
            )
            .with_variable(
                build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
            )
        )

    def choice(self, name: str, label: str, query: str) -> None:
        """Let the reader choose `name` among what `query` finds."""
        self._sheet.with_variable(
            build.QueryVariable(name)
            .label(label)
            .query({"query": query, "refId": f"{name}-choice"})
            .definition(query)
            .datasource(DATASOURCE)
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(False)
            .include_all(False)
        )

    def numbers(self, *panels: Panel) -> None:
        """Lay the numbers, which together fill the sheet's width."""
        assert sum(panel.width for panel in panels) == _WIDTH
        self._lay(panels)

    def row(self, title: str, *panels: Panel) -> None:
        """Lay panels under a heading."""
        assert sum(panel.width for panel in panels) % _WIDTH == 0
        self._sheet.with_row(build.Row(title).id(self._take_id()))
        self._lay(panels)

    def made(self) -> models.Dashboard:
        """Return the dashboard."""
        return self._sheet.build()

    def _lay(self, panels: Sequence[Panel]) -> None:
        for panel in panels:
            self._sheet.with_panel(
                panel.builder.id(self._take_id()).span(panel.width).height(panel.height)
            )

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1


def _describe(
    panel: Any,
    title: str,
    description: str,
    queries: Mapping[str, str],
    *,
    now: bool = False,
) -> None:
    panel.title(title).description(description).datasource(DATASOURCE)
    for ref, (legend, query) in zip("ABCDEFGH", queries.items(), strict=False):
        asked = prometheus.Dataquery().ref_id(ref).datasource(DATASOURCE).expr(query)
        asked.legend_format(legend)
        panel.with_target(asked.instant() if now else asked.range())


def _scale(panel: Any, unit: str, decimals: int | None, steps: Steps) -> None:
    panel.unit(unit)
    if decimals is not None:
        panel.decimals(decimals)
    made = [models.Threshold(value=value, color=colour) for value, colour in steps]
    panel.thresholds(build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(made))
    by = "thresholds" if not isinstance(panel, timeseries.Panel) else "palette-classic"
    panel.color_scheme(build.FieldColor().mode(models.FieldColorModeId(by)))
