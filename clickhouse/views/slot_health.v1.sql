-- version: 1
-- what: what PostgreSQL keeps for the replication slot, over time, and when that would be lost
-- requires: _slot
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.slot_health_v1 {on_cluster} (
  at DateTime64(6, 'UTC') COMMENT 'when it was looked at; every five seconds while a capture runs',
  pipeline String COMMENT 'the slot',
  level LowCardinality(String) COMMENT 'good, warning, critical, or lost: then all tables are read again',
  retained_bytes UInt64 COMMENT 'WAL that PostgreSQL keeps for the slot',
  safe_bytes Nullable(Int64) COMMENT 'bytes until WAL is lost; NULL where max_slot_wal_keep_size sets no limit',
  bytes_per_second Float64 COMMENT 'by how much more is kept, over the last two minutes',
  seconds_to_loss Nullable(Float64) COMMENT 'if that goes on; NULL where it does not come to that'
) SQL SECURITY DEFINER AS
SELECT at, pipeline, level, retained_bytes, safe_bytes, bytes_per_second, seconds_to_loss
FROM {cdc}._slot
COMMENT 'One row each time the slot was looked at, of the last 30 days; always filter by at';
