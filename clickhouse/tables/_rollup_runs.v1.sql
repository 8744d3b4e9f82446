-- version: 1
-- what: the runs that keep rollups up to date
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._rollup_runs {on_cluster} (
  run UInt64 COMMENT 'rises; rows of a higher one count',
  event LowCardinality(String) COMMENT 'begin or end',
  claim UInt64 COMMENT 'of the lock that it ran under',
  marks UInt64 COMMENT 'changed rows of the sources',
  at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = MergeTree ORDER BY (run, event) TTL toDateTime(at) + INTERVAL 30 DAY
COMMENT 'One begin and one end a run; a run without an end was broken off, and done again by the next one';
