-- version: 1
-- what: one row a table and insert: when its rows became visible and when they had been committed
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._freshness {on_cluster} (
  schema_name String,
  table_name String,
  visible_at DateTime64(6, 'UTC'),
  oldest_commit DateTime64(6, 'UTC'),
  newest_commit DateTime64(6, 'UTC'),
  rows UInt64,
  bytes UInt64
) ENGINE = MergeTree ORDER BY (schema_name, table_name, visible_at)
TTL toDateTime(visible_at) + INTERVAL 30 DAY
COMMENT 'Inserts; lag is visible_at - newest_commit at best and visible_at - oldest_commit at worst';
