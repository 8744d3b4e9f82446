import * as text from '@grafana/grafana-foundation-sdk/text';
import * as units from '@grafana/grafana-foundation-sdk/units';
import {linkTo} from '../layout.ts';
import {CLOCK, COUNT, coloured, LAG, limits, lines, number, ranking, rows} from '../looks.ts';
import {series, sql} from '../target.ts';

/** Seconds. Red is where data_freshness calls a table late. */
export const SECONDS_BEHIND = {orange: 10, red: 30} as const;

export const completeUpTo = () =>
  number(
    {
      title: 'Complete up to',
      unit: CLOCK,
      why: 'Every change committed up to this moment, in every table and in the metrics, is in the figures below. Older than a minute or "unknown": open Data freshness.',
    },
    'complete_up_to',
  )
    .noValue('unknown')
    .links([linkTo('data-freshness', 'Data freshness')])
    // Not min(): that passes over a table whose time is not known yet.
    .withTarget(
      sql(`SELECT complete_up_to
FROM ecommerce_analytics.data_freshness_v4
ORDER BY complete_up_to ASC NULLS FIRST
LIMIT 1`),
    );

export const secondsBehind = () =>
  number(
    {
      title: 'Seconds behind',
      unit: LAG,
      why: 'Age of "complete up to" of the table that is furthest behind. Idle tables stay near zero, because the watermark moves without changes. Red: read "What to do".',
    },
    'seconds_behind',
  )
    .noValue('unknown')
    .decimals(1)
    .thresholds(limits(SECONDS_BEHIND.orange, SECONDS_BEHIND.red))
    .withTarget(
      sql(`SELECT seconds_behind
FROM ecommerce_analytics.data_freshness_v4
ORDER BY seconds_behind DESC NULLS FIRST
LIMIT 1`),
    );

export const tablesInTrouble = () =>
  number(
    {
      title: 'Tables in trouble',
      unit: COUNT,
      why: 'Tables that are late, parked or unknown. Their reason is in the table below; the others go on without them.',
    },
    'tables',
  )
    .thresholds(limits(1, 1))
    .withTarget(
      sql(`SELECT count() AS tables
FROM ecommerce_analytics.data_freshness_v4
WHERE state IN ('late', 'parked', 'unknown')`),
    );

export const slowestLag = () =>
  number(
    {
      title: 'Slowest p95 lag, 5 minutes',
      unit: LAG,
      why: 'Of the table where it is worst: in 95 of 100 batches of the last 5 minutes the oldest change was visible this soon after its commit. No value: no changes in that time.',
    },
    'p95_lag_seconds',
  )
    .noValue('no changes')
    .decimals(2)
    .thresholds(limits(SECONDS_BEHIND.orange, SECONDS_BEHIND.red))
    .withTarget(
      sql(`SELECT p95_lag_seconds
FROM ecommerce_analytics.data_freshness_v4
WHERE p95_lag_seconds IS NOT NULL
ORDER BY p95_lag_seconds DESC
LIMIT 1`),
    );

export const otherCurrencies = () =>
  number(
    {
      title: 'Orders in another currency',
      unit: COUNT,
      why: 'Amounts of two currencies have no sum, so these orders are in no metric. Above 0: see other_currencies for which ones; FRESHET_CURRENCY says which one the metrics are of.',
    },
    'orders',
  )
    .thresholds(limits(1, 1))
    .withTarget(
      sql(`SELECT sum(orders) AS orders
FROM ecommerce_analytics.other_currencies_v1`),
    );

const STATE_COLOURS = {ok: 'green', idle: 'blue', late: 'orange', unknown: 'purple', parked: 'red'};

export const freshnessByTable = () =>
  rows(
    {
      title: 'Freshness by table',
      unit: units.NoUnit,
      why: 'Idle: nothing to do, no changes arrive. Late: more than 30 s behind. Parked: set aside, its data stand still at "complete up to". Unknown: its first reading is not finished. The reason says what happened.',
    },
    {
      table_name: units.NoUnit,
      state: units.NoUnit,
      complete_up_to: CLOCK,
      seconds_behind: LAG,
      newest_commit: CLOCK,
      newest_visible: CLOCK,
      lag_seconds: LAG,
      p95_lag_seconds: LAG,
      rows_last_5_min: COUNT,
      reason: units.NoUnit,
    },
    {state: coloured(STATE_COLOURS)},
  ).withTarget(
    sql(`SELECT table_name, state, complete_up_to, seconds_behind, newest_commit, newest_visible, lag_seconds,
  p95_lag_seconds, rows_last_5_min, reason
FROM ecommerce_analytics.data_freshness_v4
ORDER BY table_name`),
  );

export const watermarks = () =>
  ranking(
    {
      title: 'Seconds behind by table',
      unit: LAG,
      why: 'Age of each table\'s watermark ("complete up to"). One long bar is a trouble of that table: see its reason. All long at once is the source, Kafka or the pipeline.',
    },
    'seconds_behind',
  )
    .min(0)
    .thresholds(limits(SECONDS_BEHIND.orange, SECONDS_BEHIND.red))
    .withTarget(
      sql(`SELECT table_name, seconds_behind
FROM ecommerce_analytics.data_freshness_v4
ORDER BY seconds_behind DESC, table_name`),
    );

const BY_TABLE = '${__field.labels.table_name}';

export const lagOverTime = () =>
  lines({
    title: 'Lag: newest commit of a batch',
    unit: LAG,
    why: 'From the commit in PostgreSQL to rows that can be read here, for the newest row of each insert: how fresh it can be. Above 60 s: look at the slot first, then at the inserts.',
  })
    .displayName(BY_TABLE)
    .min(0)
    .withTarget(
      series(`SELECT $__timeInterval(at) AS time, table_name, max(lag_seconds) AS lag_seconds
FROM ecommerce_analytics.pipeline_lag_v1
WHERE $__timeFilter(at)
GROUP BY time, table_name
ORDER BY time, table_name`),
    );

export const worstLagOverTime = () =>
  lines({
    title: 'Lag: oldest commit of a batch',
    unit: LAG,
    why: 'The same for the oldest row of each insert: how long the unluckiest change waited. Far above the panel beside it means large batches or a backlog; it is high after any stop and falls by itself.',
  })
    .displayName(BY_TABLE)
    .min(0)
    .withTarget(
      series(`SELECT $__timeInterval(at) AS time, table_name, max(worst_lag_seconds) AS worst_lag_seconds
FROM ecommerce_analytics.pipeline_lag_v1
WHERE $__timeFilter(at)
GROUP BY time, table_name
ORDER BY time, table_name`),
    );

export const rowsPerSecond = () =>
  lines({
    title: 'Rows per second',
    unit: units.RowsPerSecond,
    why: 'Changed rows that became visible. None at all while the shop sells: the pipeline stands. A plateau while the lag grows: it works at its limit.',
  })
    .displayName(BY_TABLE)
    .min(0)
    .withTarget(
      series(`SELECT $__timeInterval(at) AS time, table_name, sum(rows) / $__interval_s AS rows_per_second
FROM ecommerce_analytics.pipeline_lag_v1
WHERE $__timeFilter(at)
GROUP BY time, table_name
ORDER BY time, table_name`),
    );

export const slotWal = () =>
  lines({
    title: 'WAL kept for the slot',
    unit: units.BytesIEC,
    why: 'What PostgreSQL keeps until Freshet has read it. It rises while Freshet or a server behind it stands still, and falls afterwards. Where "until_lost" reaches zero the slot is lost, and all tables are read again.',
  })
    .min(0)
    .withTarget(
      series(`SELECT $__timeInterval(at) AS time, max(retained_bytes) AS kept, min(safe_bytes) AS until_lost
FROM ecommerce_analytics.slot_health_v1
WHERE $__timeFilter(at)
GROUP BY time
ORDER BY time`),
    );

const SLOT_COLOURS = {good: 'green', warning: 'orange', critical: 'red', lost: 'red', 'not looked at': 'red'};

export const slots = () =>
  rows(
    {
      title: 'Slots',
      unit: units.NoUnit,
      why: 'Each slot that was looked at in the last day. "Lost in" is when PostgreSQL throws away WAL that Freshet has not read, if the last two minutes go on; empty is good while the state is. Without max_slot_wal_keep_size the slot is never lost, but the disk fills up. "Not looked at": Freshet is down, or PostgreSQL does not answer.',
    },
    {pipeline: units.NoUnit, state: units.NoUnit, lost_in: units.DurationSeconds, looked_at: CLOCK},
    {state: coloured(SLOT_COLOURS)},
  ).withTarget(
    sql(`SELECT pipeline, if(looked_at < now() - INTERVAL 1 MINUTE AND newest.level != 'lost', 'not looked at', newest.level) AS state,
  newest.seconds_to_loss AS lost_in, looked_at
FROM (SELECT pipeline, max(at) AS looked_at, argMax((level, seconds_to_loss)::Tuple(level String, seconds_to_loss Nullable(Float64)), at) AS newest
  FROM ecommerce_analytics.slot_health_v1 WHERE at > now() - INTERVAL 1 DAY GROUP BY pipeline)
ORDER BY pipeline`),
  );

const WHAT_TO_DO = `
| What you see | What to do |
|---|---|
| All tables *late*, lag grows | Is \`freshet run\` up? Its log and \`/health\` name the code of the failure and a hint. Then \`SELECT * FROM pg_replication_slots\`: an inactive slot keeps WAL until it is *lost*. |
| One table *parked* | Read its reason. Mend the cause, then \`freshet dead-letter retry TABLE\`: it goes on where it stood. The others are not touched. |
| One table *late*, its rows arrive | It has dead letters, and is complete up to the first of them: \`freshet dead-letter list\`, then \`retry\` or \`drop\`. |
| *unknown* for long | The table is being read for the first time, or again. Rows per second show that it moves. |
| WAL kept rises, a slot will be lost | Freshet, Kafka or ClickHouse stands still: its log says which. \`ALTER SYSTEM SET max_slot_wal_keep_size\` to more, and reload, gains time. |
| *idle* | Nothing. No changes arrive, and the watermark still moves. |
| "Complete up to" stands, nothing is late | The source does not answer: is PostgreSQL up, and does the slot exist? |
`.trim();

/** Text for whoever is on call; it has no query and so no unit. */
export const whatToDo = () =>
  new text.PanelBuilder()
    .title('What to do')
    .description('First steps for whoever is on call, by what the panels above show.')
    .mode(text.TextMode.Markdown)
    .content(WHAT_TO_DO);
