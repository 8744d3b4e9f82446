-- version: 2
-- what: how fresh and how complete each table is
-- requires: _tables, _watermarks, _freshness, _dead_letters
-- changed: a table that lacks changes which could not be applied is late at once, and says so
CREATE OR REPLACE VIEW {analytics}.data_freshness_v2 {on_cluster} (
  table_name String COMMENT 'schema and table at the source',
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
  tables.table_state = 'snapshot' OR marks.watermark IS NULL AS is_unknown,
  -- Known at the source, not shown here, and old: late whatever the watermark says.
  if(newest_commit > newest_visible, dateDiff('microsecond', newest_commit, now) / 1e6, 0) AS seconds_unseen,
  greatest(ifNull(seconds_behind, 0), ifNull(seconds_unseen, 0)) AS seconds_late,
  -- greatest() passes over a NULL, but returned it before 24.12 and still does under a setting.
  ifNull(greatest(newest_commit, newest_visible), ifNull(newest_commit, newest_visible)) AS last_change
SELECT
  concat(tables.schema_name, '.', tables.table_name) AS table_name,
  marks.newest_commit AS newest_commit,
  -- A table that was quiet for a day and is complete shows its newest commit.
  ifNull(batches.newest_visible, if(complete_up_to >= marks.newest_commit, marks.newest_commit, NULL)) AS newest_visible,
  batches.lag_seconds AS lag_seconds,
  round(batches.p95_lag_seconds, 6) AS p95_lag_seconds,
  if(is_unknown, NULL, marks.watermark) AS complete_up_to,
  dateDiff('microsecond', complete_up_to, now) / 1e6 AS seconds_behind,
  multiIf(
    tables.table_state = 'parked', 'parked',
    is_unknown, 'unknown',
    letters.open > 0 OR seconds_late > 30, 'late',
    ifNull(last_change < now - INTERVAL 5 MINUTE, true), 'idle',
    'ok'
  ) AS state,
  multiIf(
    state = 'parked', tables.parked_because,
    tables.table_state = 'snapshot', 'its snapshot is not finished',
    state = 'unknown', 'no watermark has arrived yet',
    letters.open > 0, concat('changes that could not be applied: ', toString(letters.open), '; see freshet dead-letter list'),
    state = 'late', concat(toString(toInt64(seconds_late)), ' s behind'),
    state = 'idle', ifNull(concat('no change since ', formatDateTime(last_change, '%F %T'), ' UTC'), 'no change so far'),
    ''
  ) AS reason,
  ifNull(batches.rows_last_5_min, 0) AS rows_last_5_min
FROM (
  SELECT schema_name, table_name, state AS table_state, reason AS parked_because FROM {cdc}._tables FINAL WHERE state <> 'dropped'
) AS tables
LEFT JOIN (
  SELECT schema_name, table_name, toNullable(complete_up_to) AS watermark, newest_commit FROM {cdc}._watermarks FINAL
) AS marks ON marks.schema_name = tables.schema_name AND marks.table_name = tables.table_name
LEFT JOIN (
  SELECT
    schema_name,
    table_name,
    toNullable(max(newest_commit)) AS newest_visible,
    toNullable(argMax(dateDiff('microsecond', batch.newest_commit, visible_at), visible_at) / 1e6) AS lag_seconds,
    quantileExactInclusiveOrNullIf(0.95)(
      dateDiff('microsecond', oldest_commit, visible_at) / 1e6, visible_at >= now - INTERVAL 5 MINUTE
    ) AS p95_lag_seconds,
    sumIf(rows, visible_at >= now - INTERVAL 5 MINUTE) AS rows_last_5_min
  FROM {cdc}._freshness AS batch
  WHERE visible_at >= now - INTERVAL 1 DAY
  GROUP BY schema_name, table_name
) AS batches ON batches.schema_name = tables.schema_name AND batches.table_name = tables.table_name
LEFT JOIN (
  SELECT schema_name, table_name, count() AS open FROM {cdc}._dead_letters FINAL WHERE state = 'open' GROUP BY schema_name, table_name
) AS letters ON letters.schema_name = tables.schema_name AND letters.table_name = tables.table_name
ORDER BY table_name
COMMENT 'One row a replicated table: late (more than 30 s behind, or without changes that could not be applied) and idle (complete, nothing new for 5 minutes) are different things';
