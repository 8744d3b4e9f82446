-- version: 1
-- what: every definition of a source table that rows were written under
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._schemas {on_cluster} (
  schema_id String,
  schema_name String,
  table_name String,
  definition String COMMENT 'columns, types and key as JSON',
  created_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(created_at) ORDER BY schema_id
COMMENT 'Definitions of the source tables; read with FINAL';
