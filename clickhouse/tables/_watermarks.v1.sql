-- version: 1
-- what: up to which position and time each table is complete
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._watermarks {on_cluster} (
  schema_name String,
  table_name String,
  position UInt64 COMMENT 'LSN',
  complete_up_to DateTime64(6, 'UTC') COMMENT 'every change committed up to here is visible',
  newest_commit Nullable(DateTime64(6, 'UTC')) COMMENT 'newest commit of this table known at the source',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY (schema_name, table_name)
COMMENT 'How far each table is complete; read with FINAL';
