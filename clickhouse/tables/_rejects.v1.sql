-- version: 1
-- what: values that ClickHouse has no place for, with what was done instead
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._rejects {on_cluster} (
  schema_name String,
  table_name String,
  key String COMMENT 'primary key of the row as JSON',
  column_name String,
  value String COMMENT 'as PostgreSQL wrote it',
  version UInt128 COMMENT '_version of the row',
  reason String,
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (schema_name, table_name, at)
TTL toDateTime(at) + INTERVAL 90 DAY
COMMENT 'Values that were not stored as they are; a replay may repeat a row';
