-- version: 1
-- what: which server and timeline a pipeline follows, so that another server is noticed
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._source {on_cluster} (
  pipeline String,
  system_identifier String,
  timeline UInt32,
  transport String COMMENT 'kafka with its topic prefix, or direct: another one cannot go on where this one stood',
  epoch UInt16 COMMENT 'rises whenever positions may start again lower',
  consistent_point UInt64 COMMENT 'LSN the slot began at',
  snapshot_done UInt8,
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY pipeline
COMMENT 'The source a pipeline follows; read with FINAL';
