-- version: 1
-- what: how each table is captured from which version on, and what was done about each change of its definition
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._schema_changes {on_cluster} (
  schema_name String,
  table_name String,
  oid UInt32 COMMENT 'of the table at the source: it stays when the table is renamed',
  since UInt128 COMMENT '_version from which rows are as this definition says',
  kind LowCardinality(String) COMMENT 'read, in place, note, park or gone',
  change String COMMENT 'what changed, in words',
  views Array(String) COMMENT 'views that used what changed, as found before it was applied',
  generation UInt32 COMMENT 'of the target table',
  schema_id String COMMENT 'its row in _schemas',
  source String COMMENT 'what the catalog of the source said, as JSON',
  at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(at) ORDER BY (oid, since, schema_name, table_name)
COMMENT 'Definitions of the source tables by the version they hold from; read with FINAL'
