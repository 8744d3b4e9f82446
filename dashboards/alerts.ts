import * as alerting from '@grafana/grafana-foundation-sdk/alerting';
import type {Builder, Dataquery} from '@grafana/grafana-foundation-sdk/cog';
import type {Dashboard} from '@grafana/grafana-foundation-sdk/dashboard';
import * as expr from '@grafana/grafana-foundation-sdk/expr';
import {PLUGIN, sql} from './target.ts';

/** Alert rules get no variables, so they name the provisioned datasource. */
export const PROVISIONED_UID = 'freshet-clickhouse';
const EXPRESSION = {type: '__expr__', uid: '__expr__'};
const DASHBOARD = 'data-freshness';

export interface Alert {
  uid: string;
  title: string;
  severity: 'critical' | 'warning';
  /** One row with one number. */
  query: string;
  /** It fires when the number is above or below `limit` for `duration`. */
  fires: 'gt' | 'lt';
  limit: number;
  duration: string;
  /** Panel of the data-freshness dashboard that shows it. */
  panel: string;
  summary: string;
  description: string;
  whatToDo: string;
  /** What it reads need not be there, and says nothing then; otherwise a query that fails fires too. */
  isOptional?: true;
}

const count = (states: string) =>
  `SELECT count() AS tables FROM ecommerce_analytics.data_freshness_v4 WHERE state IN (${states})`;

/** One row per alert. An answer without data, or none, fires too: silence is not health. */
export const ALERTS: readonly Alert[] = [
  {
    uid: 'freshet-table-late',
    title: 'A table is late',
    severity: 'warning',
    query: count("'late'"),
    fires: 'gt',
    limit: 0,
    duration: '2m',
    panel: 'Freshness by table',
    summary: '{{ $values.B.Value }} table(s) more than 30 s behind PostgreSQL',
    description: 'Changes were committed that the dashboards do not show yet.',
    whatToDo:
      'One table: read its reason on the panel. All tables: check that freshet runs, then its log and /health, then pg_replication_slots.',
  },
  {
    uid: 'freshet-table-parked',
    title: 'A table is parked',
    severity: 'critical',
    query: count("'parked'"),
    fires: 'gt',
    limit: 0,
    duration: '0s',
    panel: 'Freshness by table',
    summary: '{{ $values.B.Value }} table(s) set aside; their figures stand still',
    description: 'ClickHouse or the encoder refused rows of the table. The other tables go on.',
    whatToDo:
      'Read its reason on the panel, mend the cause and restart freshet run (or sink): it goes on where it stood.',
  },
  {
    uid: 'freshet-not-complete',
    title: 'Complete up to stands still',
    severity: 'critical',
    // Parked tables stand still on purpose and have a rule of their own.
    query: `SELECT count() AS tables FROM ecommerce_analytics.data_freshness_v4
WHERE seconds_behind > 300 AND state != 'parked'`,
    fires: 'gt',
    limit: 0,
    duration: '1m',
    panel: 'Seconds behind',
    summary: '{{ $values.B.Value }} table(s) complete only up to more than 5 minutes ago',
    description:
      'The watermark has not moved. On a quiet database it moves without changes, so this is a stop, not a pause. The metrics stand still too while a table that they come from is parked or has dead letters.',
    whatToDo:
      'Is freshet up? Its log and /health name the failure. A slot that stays inactive keeps WAL until PostgreSQL drops it: act before max_slot_wal_keep_size is reached.',
  },
  {
    uid: 'freshet-table-unknown',
    title: 'A table stays unknown',
    severity: 'warning',
    query: count("'unknown'"),
    fires: 'gt',
    limit: 0,
    duration: '1h',
    panel: 'Freshness by table',
    summary: '{{ $values.B.Value }} table(s) still without a finished first reading',
    description: 'The dashboards lack rows of it. A first reading of a large table may take this long.',
    whatToDo:
      'Rows per second show whether it moves. If not, read the log of freshet; the reading goes on after a restart.',
  },
  {
    uid: 'freshet-slot-at-risk',
    title: 'The slot may lose WAL',
    severity: 'critical',
    // Nobody who looks is no good news: WAL is kept all the same.
    query: `SELECT countIf(level IN ('critical', 'lost') OR looked_at < now() - INTERVAL 5 MINUTE) + (count() = 0) AS slots
FROM (SELECT argMax(level, at) AS level, max(at) AS looked_at FROM ecommerce_analytics.slot_health_v1
WHERE at > now() - INTERVAL 1 DAY GROUP BY pipeline)`,
    fires: 'gt',
    limit: 0,
    duration: '0s',
    panel: 'Slots',
    summary: 'PostgreSQL will soon throw away WAL that Freshet has not read, or nobody looks at the slot',
    description:
      'More WAL is kept for the slot than can be for long, or nobody has looked for five minutes. When it is lost, all tables are read again from the beginning.',
    whatToDo:
      'Is freshet up? Find what stands still: the log of freshet, Kafka, ClickHouse. To gain time raise max_slot_wal_keep_size and reload PostgreSQL, while its disk has room.',
  },
  {
    uid: 'freshet-other-currency',
    title: 'Orders in another currency',
    severity: 'warning',
    query: 'SELECT sum(orders) AS orders FROM ecommerce_analytics.other_currencies_v1',
    fires: 'gt',
    limit: 0,
    duration: '5m',
    panel: 'Orders in another currency',
    // Of a database without orders there is no such view.
    isOptional: true,
    summary: '{{ $values.B.Value }} order(s) are in no metric: their currency is another one',
    description: 'Amounts of two currencies have no sum, so the views are of FRESHET_CURRENCY alone.',
    whatToDo:
      'SELECT * FROM ecommerce_analytics.other_currencies says which. If all are in one, set FRESHET_CURRENCY to it and run: freshet migrate --anew.',
  },
  {
    uid: 'freshet-no-tables',
    title: 'The pipeline has not reported any table',
    severity: 'critical',
    query:
      "SELECT count() AS tables FROM ecommerce_analytics.data_freshness_v4 WHERE table_name != 'metrics'",
    fires: 'lt',
    limit: 1,
    duration: '5m',
    panel: 'Tables in trouble',
    summary: 'data_freshness is empty or does not answer',
    description: 'Freshet has never started against this ClickHouse, or Grafana cannot read the views.',
    whatToDo:
      "Test Grafana's datasource, then run: freshet migrate, freshet run. Grafana's user needs SELECT on the views' database only.",
  },
];

/** The file shape of Grafana's alert provisioning; `dashboards` gives the panels that rules link to. */
export function alertFile(dashboards: readonly Dashboard[]): object {
  const group = new alerting.RuleGroupBuilder('freshness')
    .interval(60)
    .rules(ALERTS.map(alert => rule(alert)))
    .build();
  return {
    apiVersion: 1,
    groups: [
      {
        orgId: 1,
        name: group.title,
        folder: 'Freshet',
        interval: `${group.interval}s`,
        rules: (group.rules ?? []).map((built, i) => ({
          ...fileRule(built),
          dashboardUid: DASHBOARD,
          panelId: panelId(dashboards, ALERTS[i]!.panel),
        })),
      },
    ],
  };
}

/** The SDK builds what the HTTP API takes; files name some fields otherwise and know their folder from the group. */
const fileRule = (built: alerting.Rule) => ({
  uid: built.uid,
  title: built.title,
  condition: built.condition,
  data: built.data,
  for: built.for,
  noDataState: built.noDataState,
  execErrState: built.execErrState,
  labels: built.labels,
  annotations: built.annotations,
});

function rule(alert: Alert): Builder<alerting.Rule> {
  const reduce = new expr.TypeReduceBuilder()
    .refId('B')
    .datasource(EXPRESSION)
    .expression('A')
    .reducer('last');
  const threshold = new expr.TypeThresholdBuilder()
    .refId('C')
    .datasource(EXPRESSION)
    .expression('B')
    .conditions([{evaluator: {type: alert.fires, params: [alert.limit]}}]);
  return new alerting.RuleBuilder(alert.title)
    .uid(alert.uid)
    .condition('C')
    .withQuery(
      query('A', PROVISIONED_UID, sql(alert.query, {datasource: {type: PLUGIN.type, uid: PROVISIONED_UID}})),
    )
    .withQuery(query('B', EXPRESSION.uid, reduce))
    .withQuery(query('C', EXPRESSION.uid, threshold))
    .forDuration(alert.duration)
    .noDataState('Alerting')
    .execErrState(alert.isOptional ? 'OK' : 'Alerting')
    .labels({severity: alert.severity, service: 'freshet'})
    .annotations({summary: alert.summary, description: alert.description, what_to_do: alert.whatToDo});
}

const query = (refId: string, datasource: string, model: Builder<Dataquery>) =>
  new alerting.QueryBuilder(refId)
    .datasourceUid(datasource)
    .relativeTimeRange({from: 600, to: 0})
    .model(model);

function panelId(dashboards: readonly Dashboard[], title: string): number {
  const panels = dashboards.find(({uid}) => uid === DASHBOARD)?.panels ?? [];
  const id = panels.find(panel => panel.title === title)?.id;
  if (id === undefined) throw new RangeError(`no panel "${title}" on ${DASHBOARD}, which an alert links to`);
  return id;
}
