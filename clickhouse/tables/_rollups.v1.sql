-- version: 1
-- what: which rollups hold all there is, and which target each of their sources was read from
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._rollups {on_cluster} (
  name String COMMENT 'a rollup, or a table of the source that rollups are computed from',
  state LowCardinality(String) COMMENT 'filled or filling; of a source: attached',
  target String COMMENT 'of a source: UUID of the table whose rows are marked',
  updated_at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY name
COMMENT 'How far each rollup is; read with FINAL';
