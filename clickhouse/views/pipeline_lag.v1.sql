-- version: 1
-- what: how long each batch took from commit to visible, for charts over time
-- requires: _freshness
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.pipeline_lag_v1 {on_cluster} (
  at DateTime64(6, 'UTC') COMMENT 'when the batch became visible',
  table_name String COMMENT 'schema and table at the source',
  lag_seconds Float64 COMMENT 'from commit to visible, for the newest commit of the batch',
  worst_lag_seconds Float64 COMMENT 'from commit to visible, for the oldest commit of the batch',
  rows UInt64 COMMENT 'row versions in the batch'
) SQL SECURITY DEFINER AS
SELECT
  batch.visible_at AS at,
  concat(batch.schema_name, '.', batch.table_name) AS table_name,
  dateDiff('microsecond', batch.newest_commit, batch.visible_at) / 1e6 AS lag_seconds,
  dateDiff('microsecond', batch.oldest_commit, batch.visible_at) / 1e6 AS worst_lag_seconds,
  batch.rows AS rows
FROM {cdc}._freshness AS batch
COMMENT 'One row a table and insert of the last 30 days; always filter by at';
