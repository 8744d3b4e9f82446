-- version: 4
-- what: how fresh and how complete each table is, and the metrics over them
-- requires: _tables, _watermarks, _freshness, _dead_letters, _rollup_watermark
-- changed: what the watermark has passed is visible, also where it was no row, such as a TRUNCATE; each table is read once, and none is joined
CREATE OR REPLACE VIEW {analytics}.data_freshness_v4 {on_cluster} (
  table_name String COMMENT 'schema and table at the source; metrics stands for the views of sales, customers and products',
  newest_commit Nullable(DateTime64(6, 'UTC')) COMMENT 'newest commit of this table known at the source',
  newest_visible Nullable(DateTime64(6, 'UTC')) COMMENT 'newest commit that ClickHouse shows; NULL when that is not known',
  lag_seconds Nullable(Float64) COMMENT 'from commit to visible, for the newest commit of the newest batch',
  p95_lag_seconds Nullable(Float64) COMMENT 'from commit to visible, for the oldest commit of each batch, 95th percentile over 5 minutes',
  complete_up_to Nullable(DateTime64(6, 'UTC')) COMMENT 'every change committed up to here is visible; NULL when unknown',
  seconds_behind Nullable(Float64) COMMENT 'now - complete_up_to',
  state LowCardinality(String) COMMENT 'ok, late, idle, unknown or parked',
  reason String COMMENT 'why it is not ok; empty when it is',
  rows_last_5_min UInt64 COMMENT 'row versions that became visible in the last 5 minutes'
) SQL SECURITY DEFINER AS
WITH
  now64(6, 'UTC') AS now,
  name = 'metrics' AS is_metrics,
  table_state = 'snapshot' OR watermark IS NULL AS is_unknown,
  -- greatest() passes over a NULL, but returned it before 24.12 and still does under a setting.
  ifNull(greatest(newest_commit, newest_visible), ifNull(newest_commit, newest_visible)) AS last_change
SELECT
  name AS table_name,
  known_commit AS newest_commit,
  if(complete_up_to >= known_commit, known_commit, newest_batch) AS newest_visible,
  lag AS lag_seconds,
  round(p95_lag, 6) AS p95_lag_seconds,
  if(is_unknown, NULL, watermark) AS complete_up_to,
  dateDiff('microsecond', complete_up_to, now) / 1e6 AS seconds_behind,
  multiIf(
    table_state = 'parked', 'parked',
    is_unknown, 'unknown',
    letters > 0 OR seconds_behind > 30, 'late',
    NOT is_metrics AND ifNull(last_change < now - INTERVAL 5 MINUTE, true), 'idle',
    'ok'
  ) AS state,
  multiIf(
    state = 'parked', ifNull(parked_because, ''),
    is_metrics AND is_unknown, 'rollups are being filled, or one of their tables is being read',
    table_state = 'snapshot', 'its snapshot is not finished',
    is_unknown, 'no watermark has arrived yet',
    letters > 0, concat('changes that could not be applied: ', toString(letters), '; see freshet dead-letter list'),
    is_metrics AND state = 'late', concat(toString(toInt64(seconds_behind)), ' s behind; a table that they come from may be, or the log of freshet says why'),
    state = 'late', concat(toString(toInt64(seconds_behind)), ' s behind'),
    state = 'idle', ifNull(concat('no change since ', formatDateTime(last_change, '%F %T'), ' UTC'), 'no change so far'),
    ''
  ) AS reason,
  rows_now AS rows_last_5_min
FROM (
  SELECT
    name,
    -- Of each there is one; any() passes over NULL.
    any(table_state) AS table_state,
    any(parked_because) AS parked_because,
    any(watermark) AS watermark,
    any(known_commit) AS known_commit,
    any(newest_batch) AS newest_batch,
    any(lag) AS lag,
    any(p95_lag) AS p95_lag,
    sum(rows_now) AS rows_now,
    sum(letters) AS letters
  FROM (
    SELECT
      concat(schema_name, '.', table_name) AS name,
      toNullable(toString(state)) AS table_state,
      toNullable(reason) AS parked_because,
      NULL AS watermark,
      NULL AS known_commit,
      NULL AS newest_batch,
      NULL AS lag,
      NULL AS p95_lag,
      0 AS rows_now,
      0 AS letters
    FROM {cdc}._tables FINAL
    WHERE state != 'dropped'
    UNION ALL
    SELECT 'metrics', 'streaming', NULL, complete_up_to, NULL, NULL, NULL, NULL, 0, 0
    FROM {cdc}._rollup_watermark FINAL
    UNION ALL
    SELECT concat(schema_name, '.', table_name), NULL, NULL, complete_up_to, newest_commit, NULL, NULL, NULL, 0, 0
    FROM {cdc}._watermarks FINAL
    UNION ALL
    SELECT
      concat(schema_name, '.', table_name),
      NULL,
      NULL,
      NULL,
      NULL,
      max(batch.newest_commit),
      argMax(dateDiff('microsecond', batch.newest_commit, visible_at), visible_at) / 1e6,
      quantileExactInclusiveOrNullIf(0.95)(
        dateDiff('microsecond', oldest_commit, visible_at) / 1e6, visible_at >= now64(6, 'UTC') - INTERVAL 5 MINUTE
      ),
      sumIf(rows, visible_at >= now64(6, 'UTC') - INTERVAL 5 MINUTE),
      0
    FROM {cdc}._freshness AS batch
    WHERE visible_at >= now64(6, 'UTC') - INTERVAL 1 DAY
    GROUP BY schema_name, table_name
    UNION ALL
    SELECT concat(schema_name, '.', table_name), NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, count()
    FROM {cdc}._dead_letters FINAL
    WHERE state = 'open'
    GROUP BY schema_name, table_name
  )
  GROUP BY name
)
WHERE table_state IS NOT NULL
ORDER BY table_name
COMMENT 'One row a replicated table, and one for the metrics: late (more than 30 s behind, or without changes that could not be applied) and idle (complete, nothing new for 5 minutes) are different things';
