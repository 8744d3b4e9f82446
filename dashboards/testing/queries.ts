import {z} from 'zod';
import {ALERTS} from '../alerts.ts';
import {buildDashboards} from '../build.ts';
import {ANALYTICS} from '../target.ts';

const Target = z.object({
  refId: z.string(),
  datasource: z.object({type: z.string(), uid: z.string()}),
  editorType: z.literal('sql'),
  rawSql: z.string().min(1),
  queryType: z.enum(['table', 'timeseries']),
  format: z.union([z.literal(0), z.literal(1)]),
  pluginVersion: z.string(),
});
const Override = z.object({
  matcher: z.object({id: z.string(), options: z.unknown()}),
  properties: z.array(z.object({id: z.string(), value: z.unknown()})),
});
const Panel = z.object({
  id: z.number().int().positive(),
  type: z.string(),
  title: z.string().min(1),
  description: z.string().optional(),
  gridPos: z.object({x: z.number(), y: z.number(), w: z.number(), h: z.number()}),
  datasource: z.object({uid: z.string()}).optional(),
  links: z.array(z.object({url: z.string()})).default([]),
  targets: z.array(Target).default([]),
  options: z
    .object({
      xField: z.string().optional(),
      reduceOptions: z
        .object({calcs: z.array(z.string()), fields: z.string(), values: z.boolean()})
        .optional(),
    })
    .optional(),
  fieldConfig: z
    .object({defaults: z.object({unit: z.string().optional()}), overrides: z.array(Override)})
    .optional(),
});
const Variable = z.object({
  name: z.string(),
  type: z.string(),
  label: z.string(),
  refresh: z.number().optional(),
  query: z.union([z.string(), z.object({refId: z.string(), rawSql: z.string()})]),
});
const Dashboard = z.object({
  uid: z.string(),
  title: z.string().min(1),
  description: z.string().min(1),
  tags: z.array(z.string()),
  editable: z.boolean(),
  refresh: z.string(),
  graphTooltip: z.number(),
  timezone: z.string(),
  schemaVersion: z.number(),
  time: z.object({from: z.string(), to: z.string()}),
  templating: z.object({list: z.array(Variable)}),
  links: z.array(z.object({type: z.string(), tags: z.array(z.string()), keepTime: z.boolean()})),
  panels: z.array(Panel),
});
export type Dashboard = z.infer<typeof Dashboard>;
export type Panel = z.infer<typeof Panel>;

/** The generated JSON, read as a reader of it would: what the dashboards mean, not how they are made. */
export const readDashboards = (database = ANALYTICS, timeZone = 'UTC'): Dashboard[] =>
  buildDashboards({database, currency: 'GBP', timeZone}).map(({json}) => Dashboard.parse(JSON.parse(json)));

/** A query of a dashboard or an alert, and where it stands. */
export interface Query {
  name: string;
  rawSql: string;
  format: 0 | 1;
  kind: 'panel' | 'variable' | 'alert';
  /** Time range that it is asked with, such as 'now-1h'. */
  from: string;
  panel?: Panel;
}

/** Every query there is, with the views in `database`. */
export function everyQuery(database: string, timeZone?: string): Query[] {
  const found: Query[] = [];
  for (const {uid, panels, templating, time} of readDashboards(database, timeZone)) {
    for (const panel of panels) {
      for (const {rawSql, format} of panel.targets) {
        found.push({name: `${uid}: ${panel.title}`, rawSql, format, kind: 'panel', from: time.from, panel});
      }
    }
    for (const {name, query, type} of templating.list) {
      if (type !== 'query' || typeof query === 'string') continue;
      found.push({
        name: `${uid}: $${name}`,
        rawSql: query.rawSql,
        format: 1,
        kind: 'variable',
        from: time.from,
      });
    }
  }
  for (const {title, query} of ALERTS) {
    const rawSql = query.replaceAll('ecommerce_analytics.', `${database}.`);
    found.push({name: `alert: ${title}`, rawSql, format: 1, kind: 'alert', from: 'now-10m'});
  }
  return found;
}
