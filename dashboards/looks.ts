import * as barchart from '@grafana/grafana-foundation-sdk/barchart';
import * as bargauge from '@grafana/grafana-foundation-sdk/bargauge';
import * as common from '@grafana/grafana-foundation-sdk/common';
import {
  type FieldColorModeId,
  MappingType,
  ThresholdsConfigBuilder,
  ThresholdsMode,
  type ValueMapping,
} from '@grafana/grafana-foundation-sdk/dashboard';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import * as units from '@grafana/grafana-foundation-sdk/units';
import {CHOSEN_DATASOURCE} from './target.ts';

/** Units that more than one panel uses. The shop sells in pounds. */
export const MONEY = units.Pounds;
export const COUNT = units.Short;
export const SHARE = units.PercentUnit;
export const LAG = units.Seconds;
/** The time alone where it is of today. */
export const CLOCK = units.DatetimeISONotToday;

/** `why` is the panel's description: what it means, and what to do about it. */
export interface Look {
  title: string;
  why: string;
  unit: string;
}

/** Column of a table, and its unit. */
export type Columns = Readonly<Record<string, string>>;
type Column = {id: string; value?: unknown};

interface Panel {
  title(title: string): this;
  description(text: string): this;
  unit(unit: string): this;
  datasource(datasource: {type: string; uid: string}): this;
  noValue(text: string): this;
}
const framed = <P extends Panel>(panel: P, {title, why, unit}: Look): P =>
  panel.title(title).description(why).unit(unit).datasource(CHOSEN_DATASOURCE).noValue('no data');

const reduce = (field: string, row: 'last' | 'lastNotNull' = 'lastNotNull') =>
  new common.ReduceDataOptionsBuilder().calcs([row]).fields(`/^${field}$/`).values(false);

/** One number: the last row of `field`. */
export const number = (look: Look, field: string) =>
  framed(new stat.PanelBuilder(), look)
    .reduceOptions(reduce(field))
    .colorMode(common.BigValueColorMode.Value)
    .graphMode(common.BigValueGraphMode.None)
    .justifyMode(common.BigValueJustifyMode.Auto)
    .textMode(common.BigValueTextMode.Value);

/** One number of two rows, with the change from the first row (the period before) to the last, which may have none. */
export const comparedNumber = (look: Look, field: string) =>
  number(look, field).reduceOptions(reduce(field, 'last')).showPercentChange(true);

export const lines = (look: Look) =>
  framed(new timeseries.PanelBuilder(), look)
    .drawStyle(common.GraphDrawStyle.Line)
    .lineWidth(1)
    .fillOpacity(8)
    .showPoints(common.VisibilityMode.Auto)
    .legend(legend())
    .tooltip(tooltip());

/** Bars on one another, for parts of a whole over time. */
export const stackedBars = (look: Look) =>
  framed(new timeseries.PanelBuilder(), look)
    .drawStyle(common.GraphDrawStyle.Bars)
    .lineWidth(0)
    .fillOpacity(80)
    .stacking(new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group('A'))
    .legend(legend())
    .tooltip(tooltip());

/** A bar a row: the first text column names it, `field` is its length. */
export const ranking = (look: Look, field: string) =>
  framed(new bargauge.PanelBuilder(), look)
    .orientation(common.VizOrientation.Horizontal)
    .displayMode(common.BarGaugeDisplayMode.Basic)
    .valueMode(common.BarGaugeValueMode.Text)
    .reduceOptions(reduce(field).values(true));

/** A bar a row, upright, in the order of the rows. */
export const distribution = (look: Look, names: string) =>
  framed(new barchart.PanelBuilder(), look)
    .xField(names)
    .showValue(common.VisibilityMode.Auto)
    .legend(new common.VizLegendOptionsBuilder().showLegend(false));

/**
 * A table. `columns` names every column of the query with its unit; headings are the names in words. `extra` adds
 * properties to some of them.
 */
export const rows = (look: Look, columns: Columns, extra: Readonly<Record<string, Column[]>> = {}) => {
  const panel = framed(new table.PanelBuilder(), look).cellHeight(common.TableCellHeight.Sm).filterable(true);
  for (const [name, unit] of Object.entries(columns)) {
    panel.overrideByName(name, [
      {id: 'displayName', value: heading(name)},
      {id: 'unit', value: unit},
      ...(extra[name] ?? []),
    ]);
  }
  return panel;
};

const heading = (name: string) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll('_', ' ');

/** Colours a value by what it says, in the cell's background. */
export const coloured = (colours: Readonly<Record<string, string>>): Column[] => [
  {id: 'mappings', value: valueColours(colours)},
  {id: 'custom.cellOptions', value: {type: 'color-background', mode: 'basic'}},
];

const valueColours = (colours: Readonly<Record<string, string>>): ValueMapping[] => [
  {
    type: MappingType.ValueToText,
    options: Object.fromEntries(
      Object.entries(colours).map(([value, color], index) => [value, {text: value, color, index}]),
    ),
  },
];

/** Green, from `orange` on orange, from `red` on red, in the panel's unit; where red is the lower one, downwards. */
export const limits = (orange: number, red: number) => {
  const falls = red < orange;
  return new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps([
    {value: null, color: falls ? 'red' : 'green'},
    {value: Math.min(orange, red), color: 'orange'},
    {value: Math.max(orange, red), color: falls ? 'green' : 'red'},
  ]);
};

export const fixed = (color: string): Column => ({
  id: 'color',
  value: {mode: 'fixed' satisfies `${FieldColorModeId}`, fixedColor: color},
});

const legend = () =>
  new common.VizLegendOptionsBuilder()
    .displayMode(common.LegendDisplayMode.List)
    .placement(common.LegendPlacement.Bottom)
    .showLegend(true);
const tooltip = () =>
  new common.VizTooltipOptionsBuilder()
    .mode(common.TooltipDisplayMode.Multi)
    .sort(common.SortOrder.Descending);
