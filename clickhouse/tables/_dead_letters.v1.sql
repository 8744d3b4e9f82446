-- version: 1
-- what: changes that could not be applied, as they came, and what became of them
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._dead_letters {on_cluster} (
  schema_name String,
  table_name String,
  topic_partition UInt32 COMMENT 'place in the topic of the table',
  topic_offset UInt64 COMMENT '0 where there is no topic',
  version UInt128 COMMENT '_version of the row; 0 where it is not known',
  key String COMMENT 'primary key of the row as JSON',
  code LowCardinality(String) COMMENT 'of the failure',
  reason String,
  state LowCardinality(String) COMMENT 'open, retried, dropped or superseded',
  superseded_by UInt128 COMMENT 'version of what made it void; 0 otherwise',
  dead_letter_offset Int64 COMMENT 'place in the dead-letter topic; -1 where it is not there',
  message_key String COMMENT 'base64; this and what follows is empty once the letter is closed',
  message_value String COMMENT 'base64',
  message_headers String COMMENT 'JSON: name and base64',
  at DateTime64(6, 'UTC'),
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree(updated_at) ORDER BY (schema_name, table_name, topic_partition, version, topic_offset)
COMMENT 'Dead letters; read with FINAL';
