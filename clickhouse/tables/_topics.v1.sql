-- version: 1
-- what: where each topic ends, so that one that was deleted, made again or cut short is noticed
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._topics {on_cluster} (
  pipeline String,
  topic String,
  partitions UInt16 COMMENT 'by which keys are routed; the topic may have got more since',
  ends Array(UInt64) COMMENT 'offset behind the last message of each partition, of those that were acknowledged',
  version UInt64
) ENGINE = ReplacingMergeTree(version) ORDER BY (pipeline, topic)
COMMENT 'Topics of Kafka as capture left them; read with FINAL';
