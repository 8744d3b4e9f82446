-- version: 1
-- what: what PostgreSQL keeps for the replication slot, and for how long it can
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._slot {on_cluster} (
  pipeline String,
  at DateTime64(6, 'UTC'),
  level LowCardinality(String) COMMENT 'good, warning, critical or lost',
  retained_bytes UInt64,
  safe_bytes Nullable(Int64) COMMENT 'until WAL is lost; NULL where max_slot_wal_keep_size sets no limit',
  bytes_per_second Float64 COMMENT 'by how much more is kept, over the last two minutes',
  seconds_to_loss Nullable(Float64) COMMENT 'if that goes on; NULL where it does not come to that'
) ENGINE = MergeTree ORDER BY (pipeline, at)
TTL toDateTime(at) + INTERVAL 30 DAY
COMMENT 'A look at the slot every five seconds while a capture runs';
