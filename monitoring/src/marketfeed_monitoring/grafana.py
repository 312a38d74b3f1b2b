"""Rendering of boards as Grafana dashboard JSON, with Grafana's typed library."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from marketfeed_monitoring.model import (
    Board,
    Colour,
    Column,
    GridPosition,
    Kind,
    Panel,
    Query,
    Row,
    Variable,
    layout,
)
from marketfeed_monitoring.promql import grouping_labels

TAG: Final = "marketfeed"
DATA_SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
_ALL: Final = dashboard.VariableOption(selected=True, text="All", value="$__all")


_PanelBuilder: TypeAlias = stat.Panel | timeseries.Panel | table.Panel | statetimeline.Panel


def render(board: Board) -> str:
    """Return the JSON text of a dashboard; the output is deterministic."""
    made = (
        builders.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .link(
            builders.DashboardLink("marketfeed")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in board.variables:
        made.with_variable(_variable(variable))
    for number, (each, position) in enumerate(layout(board), start=1):
        if isinstance(each, Row):
            made.with_row(builders.Row(each.title).id(number).grid_pos(_grid(position)))
        else:
            made.with_panel(_panel(each, position, number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(variable: Variable) -> builders.QueryVariable:
    # ".*" instead of a list of values also matches series without the label, as outside Kubernetes.
    return (
        builders.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(DATA_SOURCE)
        .query(variable.query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(_ALL)
    )


def _grid(position: GridPosition) -> dashboard.GridPos:
    return dashboard.GridPos(x=position.x, y=position.y, w=position.width, h=position.height)


def _panel(panel: Panel, position: GridPosition, number: int) -> _PanelBuilder:
    made = _BUILDERS[panel.kind](panel)
    made.id(number).title(panel.title).description(panel.description).unit(panel.unit)
    made.datasource(DATA_SOURCE).grid_pos(_grid(position))
    made.targets([_target(panel, query, index) for index, query in enumerate(panel.queries)])
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    if panel.no_value:
        made.no_value(panel.no_value)
    if panel.thresholds:
        made.thresholds(_thresholds(panel.thresholds))
    if panel.value_mappings:
        made.mappings([_value_map(panel)])
    return made


def _target(panel: Panel, query: Query, index: int) -> Builder[Dataquery]:
    made = prometheus.Dataquery().ref_id(ref_id(index)).expr(query.expr).datasource(DATA_SOURCE)
    if query.legend:
        made.legend_format(query.legend)
    if panel.kind == "table":
        return made.instant().format(PromQueryFormat.TABLE)
    return made.instant() if panel.kind == "stat" else made.range()


def ref_id(index: int) -> str:
    """Return Grafana's refId of a panel's query by its index."""
    return chr(ord("A") + index)


def _stat(panel: Panel) -> stat.Panel:
    one_value = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)
    named = any(query.legend for query in panel.queries)
    return (
        stat.Panel()
        .reduce_options(one_value)
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.NONE)
        .justify_mode(common.BigValueJustifyMode.CENTER)
        .text_mode(common.BigValueTextMode.VALUE_AND_NAME if named else common.BigValueTextMode.VALUE)
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    )


def _time_series(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(
            common_builders.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
        .min(0)
    )
    if panel.stacked:
        made.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.thresholds:
        dashed = common.GraphThresholdsStyleMode.DASHED
        made.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(dashed))
    return made


def _timeline(_: Panel) -> statetimeline.Panel:
    return (
        statetimeline.Panel()
        .merge_values(True)
        .line_width(0)
        .fill_opacity(80)
        .row_height(0.85)
        .legend(_legend())
        .color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    )


def _legend() -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
    )


def _table(panel: Panel) -> table.Panel:
    """Return a table with one column per query, joined by labels."""
    alone = len(panel.queries) == 1  # Grafana then names the column "Value"
    sources = {
        "Value" if alone and column.source == "Value #A" else column.source: column
        for column in panel.columns
    }
    labels = set().union(*(grouping_labels(query.expr) for query in panel.queries))
    hidden = sorted({"Time", *labels} - set(sources))
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {source: index for index, source in enumerate(sources)},
        "renameByName": {source: column.title for source, column in sources.items()},
    }
    made = table.Panel().show_header(True).cell_height(common.TableCellHeight.SM)
    if len(panel.queries) > 1:
        made.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    made.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=organize))
    for column in panel.columns:
        if properties := _column(column):
            made.override_by_name(column.title, properties)
    return made


def _column(column: Column) -> list[dashboard.DynamicConfigValue]:
    made: list[dashboard.DynamicConfigValue] = []
    if column.unit:
        made.append(dashboard.DynamicConfigValue(id_val="unit", value=column.unit))
    if column.thresholds:
        coloured = common.TableColoredBackgroundCellOptions()
        made.append(dashboard.DynamicConfigValue(id_val="custom.cellOptions", value=coloured))
        steps = _thresholds(column.thresholds).build()
        made.append(dashboard.DynamicConfigValue(id_val="thresholds", value=steps))
    return made


def _thresholds(steps: Sequence[tuple[float, Colour]]) -> builders.ThresholdsConfig:
    # The lowest step has no value: JSON has no infinity, and Grafana reads null as minus infinity.
    made = [
        dashboard.Threshold(value=None if math.isinf(value) else value, color=colour)
        for value, colour in steps
    ]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def _value_map(panel: Panel) -> dashboard.ValueMap:
    return dashboard.ValueMap(
        options={
            f"{value:g}": dashboard.ValueMappingResult(text=text, color=colour, index=index)
            for index, (value, (text, colour)) in enumerate(panel.value_mappings.items())
        }
    )


_BUILDERS: Final[dict[Kind, Callable[[Panel], _PanelBuilder]]] = {
    "stat": _stat,
    "timeseries": _time_series,
    "table": _table,
    "timeline": _timeline,
}
