-- version: 1
-- what: up to which time the rollups hold all there is
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._rollup_watermark {on_cluster} (
  one UInt8 COMMENT 'there is one row, 0',
  complete_up_to Nullable(DateTime64(6, 'UTC')) COMMENT 'every change committed up to here, in every table that rollups are of, is in all rollups; NULL when unknown',
  updated_at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY one
COMMENT 'How far the rollups are complete; read with FINAL';
