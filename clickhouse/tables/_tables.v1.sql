-- version: 1
-- what: one row a replicated table: where it goes and whether it is being read, streams, or is set aside
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._tables {on_cluster} (
  schema_name String,
  table_name String,
  target String COMMENT 'the table in this database that its view shows',
  state LowCardinality(String) COMMENT 'snapshot, streaming, parked or dropped',
  reason String COMMENT 'why it is read again, parked or dropped; empty otherwise',
  needs_read UInt8 COMMENT 'parked at the source: it is read again when it can be',
  snapshot_position UInt64 COMMENT 'LSN of the consistent point its rows were read at',
  schema_id String COMMENT 'what its view shows: a row in _schemas; empty before there is one',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY (schema_name, table_name)
COMMENT 'Replicated tables and their state; read with FINAL';
