import type {Builder} from '@grafana/grafana-foundation-sdk/cog';
import {
  type Dashboard,
  DashboardBuilder,
  DashboardCursorSync,
  type DashboardLink,
  DashboardLinkBuilder,
  DashboardLinkType,
  DatasourceVariableBuilder,
  type GridPos,
  type Panel,
  RowBuilder,
  type VariableModel,
} from '@grafana/grafana-foundation-sdk/dashboard';
import {PLUGIN} from './target.ts';

/** Days and hours are those of the business: see `fitted`, which puts its time zone here. */
export const UTC = 'utc';
/** Grafana's grid is 24 wide. */
const GRID = 24;
/** On every dashboard of the set; their links find each other by it. */
const TAG = 'freshet';

interface PanelBuilder extends Builder<Panel> {
  id(id: number): unknown;
  gridPos(position: GridPos): unknown;
}

/** A width of the 24, and what stands there. */
export type Cell = readonly [width: number, panel: PanelBuilder];
/** Panels side by side, all of one height (a unit is 30 pixels). */
export interface Line {
  height: number;
  cells: readonly Cell[];
}
export interface Row {
  title: string;
  lines: readonly Line[];
}
export const line = (height: number, ...cells: Cell[]): Line => ({height, cells});
export const row = (title: string, ...lines: Line[]): Row => ({title, lines});

export interface DashboardSpec {
  uid: string;
  title: string;
  why: string;
  tags: readonly string[];
  /** Start of the default time range, such as 'now-30d'. */
  from: string;
  variables?: readonly Builder<VariableModel>[];
  rows: readonly Row[];
}

/**
 * A dashboard with what all of them share. Ids and positions are given here, because the SDK gives panels no id and
 * lets lines run past the grid. Throws RangeError for a line that does not fill the grid exactly.
 */
export function dashboard(spec: DashboardSpec): Dashboard {
  const builder = new DashboardBuilder(spec.title)
    .uid(spec.uid)
    .description(spec.why)
    .tags([TAG, ...spec.tags])
    .readonly()
    .refresh('30s')
    .time({from: spec.from, to: 'now'})
    .timezone(UTC)
    .tooltip(DashboardCursorSync.Crosshair)
    .link(shown(linksByTag()))
    .annotations([])
    .variables([chosenDatasource(), ...(spec.variables ?? [])]);
  let id = 0;
  let y = 0;
  for (const {title, lines} of spec.rows) {
    builder.withRow(new RowBuilder(title).id(++id).gridPos({x: 0, y, w: GRID, h: 1}));
    y += 1;
    for (const {height, cells} of lines) {
      let x = 0;
      for (const [width, panel] of cells) {
        panel.id(++id);
        panel.gridPos({x, y, w: width, h: height});
        builder.withPanel(panel);
        x += width;
      }
      if (x !== GRID) throw new RangeError(`${spec.uid}, ${title}: a line is ${x} wide instead of ${GRID}`);
      y += height;
    }
  }
  return builder.build();
}

/** Without the SDK's default placement, which hides links in a menu. */
const shown = (link: Builder<DashboardLink>): Builder<DashboardLink> => {
  const {placement: _, ...rest} = link.build();
  return {build: () => rest};
};

/** A link on a panel to another dashboard of the set, in the same time range. */
export const linkTo = (uid: string, title: string): Builder<DashboardLink> =>
  shown(
    new DashboardLinkBuilder(title)
      .type(DashboardLinkType.Link)
      .url(`/d/${uid}?\${__url_time_range}&\${datasource:queryparam}`),
  );

const linksByTag = () =>
  new DashboardLinkBuilder('Freshet')
    .type(DashboardLinkType.Dashboards)
    .tags([TAG])
    .icon('dashboard')
    .tooltip('The other dashboards, with the same time range')
    .keepTime(true)
    .includeVars(true);

const chosenDatasource = () =>
  new DatasourceVariableBuilder('datasource').label('Data source').type(PLUGIN.type);
