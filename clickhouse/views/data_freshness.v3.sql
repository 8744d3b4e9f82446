-- version: 3
-- what: how fresh and how complete each table is, and the metrics over them
-- requires: data_freshness_v2, _rollup_watermark
-- changed: a row for the metrics, whose rollups follow the tables and may stand still while those go on
CREATE OR REPLACE VIEW {analytics}.data_freshness_v3 {on_cluster} (
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
SELECT * FROM {analytics}.data_freshness_v2
UNION ALL
SELECT
  'metrics' AS table_name,
  NULL AS newest_commit,
  NULL AS newest_visible,
  NULL AS lag_seconds,
  NULL AS p95_lag_seconds,
  rollups.complete_up_to AS complete_up_to,
  dateDiff('microsecond', rollups.complete_up_to, now64(6, 'UTC')) / 1e6 AS seconds_behind,
  multiIf(complete_up_to IS NULL, 'unknown', seconds_behind > 30, 'late', 'ok') AS state,
  multiIf(
    state = 'unknown', 'rollups are being filled, or one of their tables is being read',
    state = 'late', concat(toString(toInt64(seconds_behind)), ' s behind; the log of freshet says why'),
    ''
  ) AS reason,
  0 AS rows_last_5_min
FROM {cdc}._rollup_watermark AS rollups FINAL
COMMENT 'One row a replicated table, and one for the metrics: late (more than 30 s behind, or without changes that could not be applied) and idle (complete, nothing new for 5 minutes) are different things';
