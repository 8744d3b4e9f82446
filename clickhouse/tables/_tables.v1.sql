-- version: 1
-- what: one row a replicated table: where it goes and whether it is being read, streams, or is set aside
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._tables {on_cluster} (
  schema_name String,
  table_name String,
  target String COMMENT 'its table in this database',
  state LowCardinality(String) COMMENT 'snapshot, streaming or parked',
  reason String COMMENT 'why it is parked; empty otherwise',
  snapshot_position UInt64 COMMENT 'LSN of the consistent point its rows were read at',
  schema_id String COMMENT 'its row in _schemas',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY (schema_name, table_name)
COMMENT 'Replicated tables and their state; read with FINAL';
