-- version: 1
-- what: the finished chunks of a snapshot, which are not read again
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._snapshot_chunks {on_cluster} (
  pipeline String,
  point UInt64 COMMENT 'LSN at which the snapshot began',
  oid UInt32,
  chunk UInt32,
  read_at_point UInt64 COMMENT 'LSN that its rows are of: where the snapshot went on after a crash, a later one',
  rows UInt64,
  bytes UInt64,
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (pipeline, point, oid, chunk) TTL toDateTime(at) + INTERVAL 90 DAY
COMMENT 'Chunks whose rows are all there; one row for each time that one was read';
