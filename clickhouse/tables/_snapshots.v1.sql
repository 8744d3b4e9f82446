-- version: 1
-- what: what an unfinished snapshot is to read, so that it goes on where it stood
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._snapshots {on_cluster} (
  pipeline String,
  point UInt64 COMMENT 'LSN at which the snapshot began: its first point',
  schema_name String,
  table_name String,
  oid UInt32,
  schema_id String COMMENT 'its row in _schemas',
  source String COMMENT 'what the catalog of the source said, as JSON',
  blocks UInt32 COMMENT 'of PostgreSQL''s heap in each chunk; 0: the table is one chunk',
  chunks UInt32,
  at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(at) ORDER BY (pipeline, point, oid) TTL toDateTime(at) + INTERVAL 90 DAY
COMMENT 'Tables of a snapshot and how they are divided; read with FINAL';
