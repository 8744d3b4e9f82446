-- version: 1
-- what: up to where a pipeline has acknowledged its slot at the most, so that a slot or a server that is not what it was is noticed
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._acknowledged {on_cluster} (
  pipeline String,
  epoch UInt16 COMMENT 'of _source; positions of an earlier one say nothing',
  position UInt64 COMMENT 'LSN: nothing behind it was acknowledged',
  commit_lsn UInt64 COMMENT 'the last transaction that was sent before it; 0 where there is none',
  commit_micros Int64,
  xid UInt32,
  failover UInt8 COMMENT 'the slot was kept on standbys too, and no change was sent before they had it',
  cluster String COMMENT 'Kafka cluster; empty without Kafka',
  version UInt64
) ENGINE = ReplacingMergeTree(version) ORDER BY pipeline
COMMENT 'Written down before it is acknowledged, once a second while changes flow; read with FINAL';
