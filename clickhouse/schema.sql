-- What readers and the pipeline find after a migration, as ClickHouse itself tells it. Generated:
--   UPDATE_SCHEMA=1 node_modules/.bin/ava clickhouse/schema.test.ts
-- The queries of the views, and each version's own name, are in clickhouse/views/.

CREATE TABLE cdc._acknowledged (
  pipeline String,
  epoch UInt16 COMMENT 'of _source; positions of an earlier one say nothing',
  position UInt64 COMMENT 'LSN: nothing behind it was acknowledged',
  commit_lsn UInt64 COMMENT 'the last transaction that was sent before it; 0 where there is none',
  commit_micros Int64,
  xid UInt32,
  failover UInt8 COMMENT 'the slot was kept on standbys too, and no change was sent before they had it',
  cluster String COMMENT 'Kafka cluster; empty without Kafka',
  version UInt64
) ENGINE = ReplacingMergeTree ORDER BY (pipeline) COMMENT 'Written down before it is acknowledged, once a second while changes flow; read with FINAL';

CREATE TABLE cdc._customer_orders_v1 (
  customer_id Int64 COMMENT 'customers.id',
  order_id Int64 COMMENT 'orders.id',
  at DateTime64(6, 'UTC') COMMENT 'when it was placed',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (customer_id, order_id) COMMENT 'Orders of known customers; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._customer_orders_v1_keys (
  order_id Int64,
  customer_id Int64
) ENGINE = ReplacingMergeTree ORDER BY (order_id, customer_id) COMMENT 'Every key that each bucket of _customer_orders_v1 ever had';

CREATE TABLE cdc._customer_sales_v1 (
  customer_id Int64 COMMENT 'customers.id',
  name String COMMENT 'as it is now',
  country String COMMENT 'of the customer',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (customer_id) COMMENT 'Known customers with an order; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._customer_starts_v1 (
  day Date32 COMMENT 'in UTC',
  customer_id Int64 COMMENT 'customers.id',
  at DateTime64(6, 'UTC') COMMENT 'when the first sales order was placed',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (day, customer_id) COMMENT 'One row a customer with at least one sales order; read with FINAL';

CREATE TABLE cdc._customer_starts_v1_keys (
  customer_id Int64,
  day Date32
) ENGINE = ReplacingMergeTree ORDER BY (customer_id, day) COMMENT 'Every key that each bucket of _customer_starts_v1 ever had';

CREATE TABLE cdc._customer_totals_v1 (
  customer_id Int64 COMMENT 'customers.id',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  first_sale_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first sales order',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (customer_id) COMMENT 'Customers with an order; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._dead_letters (
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
) ENGINE = ReplacingMergeTree ORDER BY (schema_name, table_name, topic_partition, version, topic_offset) COMMENT 'Dead letters; read with FINAL';

CREATE TABLE cdc._foreign_orders_v1 (
  order_id Int64 COMMENT 'orders.id',
  currency LowCardinality(String) COMMENT 'orders.currency; empty where that is NULL',
  at DateTime64(6, 'UTC') COMMENT 'when it was placed',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (order_id) COMMENT 'Orders that are not in GBP; read with FINAL';

CREATE TABLE cdc._freshness (
  schema_name String,
  table_name String,
  visible_at DateTime64(6, 'UTC'),
  oldest_commit DateTime64(6, 'UTC'),
  newest_commit DateTime64(6, 'UTC'),
  rows UInt64,
  bytes UInt64
) ENGINE = MergeTree ORDER BY (schema_name, table_name, visible_at) COMMENT 'Inserts; lag is visible_at - newest_commit at best and visible_at - oldest_commit at worst';

CREATE TABLE cdc._marks_customers (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MergeTree ORDER BY ((id)) COMMENT 'Rows of customers that were written, and are not in the rollups yet';

CREATE TABLE cdc._marks_customers_mv (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MaterializedView ORDER BY ();

CREATE TABLE cdc._marks_order_items (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MergeTree ORDER BY ((id)) COMMENT 'Rows of order_items that were written, and are not in the rollups yet';

CREATE TABLE cdc._marks_order_items_mv (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MaterializedView ORDER BY ();

CREATE TABLE cdc._marks_orders (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MergeTree ORDER BY ((id)) COMMENT 'Rows of orders that were written, and are not in the rollups yet';

CREATE TABLE cdc._marks_orders_mv (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MaterializedView ORDER BY ();

CREATE TABLE cdc._marks_products (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MergeTree ORDER BY ((id)) COMMENT 'Rows of products that were written, and are not in the rollups yet';

CREATE TABLE cdc._marks_products_mv (
  id Int64,
  _version UInt128,
  _at DateTime,
  _target LowCardinality(String)
) ENGINE = MaterializedView ORDER BY ();

CREATE TABLE cdc._migration_lock (
  number UInt64,
  event LowCardinality(String) COMMENT 'claim, alive or release',
  owner String,
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (number, event) COMMENT 'Who migrates; one claim a number';

CREATE TABLE cdc._migrations (
  file String,
  sha256 String,
  applied_by String,
  applied_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (file) COMMENT 'SQL files that were applied; read with FINAL';

CREATE TABLE cdc._order_lines_v1 (
  order_id Int64 COMMENT 'order_items.order_id',
  line_id Int64 COMMENT 'order_items.id',
  product_id Int64 COMMENT 'order_items.product_id',
  quantity Int32 COMMENT 'negative in returns',
  unit_price Decimal(12, 3) COMMENT 'what it was sold at',
  at DateTime64(6, 'UTC') COMMENT 'order_items.ordered_at',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (order_id, line_id) COMMENT 'Order lines by their order; read with FINAL';

CREATE TABLE cdc._order_lines_v1_keys (
  line_id Int64,
  order_id Int64
) ENGINE = ReplacingMergeTree ORDER BY (line_id, order_id) COMMENT 'Every key that each bucket of _order_lines_v1 ever had';

CREATE TABLE cdc._order_moments_v1 (
  slot DateTime64(0, 'UTC') COMMENT 'start of five minutes',
  order_id Int64 COMMENT 'orders.id',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  gross_sales Decimal(38, 3),
  returns_total Decimal(38, 3),
  cancelled_total Decimal(38, 3),
  revenue Decimal(38, 3),
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (slot, order_id) COMMENT 'One row an order and five minutes; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._order_moments_v1_keys (
  order_id Int64,
  slot DateTime64(0, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (order_id, slot) COMMENT 'Every key that each bucket of _order_moments_v1 ever had';

CREATE TABLE cdc._product_orders_v1 (
  product_id Int64 COMMENT 'products.id',
  order_id Int64 COMMENT 'orders.id',
  orders UInt64 COMMENT '1 where it is not cancelled',
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  sold_units Int64,
  returned_units Int64,
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (product_id, order_id) COMMENT 'Orders by product; measures as in line_facts; read with FINAL';

CREATE TABLE cdc._product_orders_v1_keys (
  order_id Int64,
  product_id Int64
) ENGINE = ReplacingMergeTree ORDER BY (order_id, product_id) COMMENT 'Every key that each bucket of _product_orders_v1 ever had';

CREATE TABLE cdc._product_sales_v1 (
  product_id Int64 COMMENT 'products.id',
  sku String COMMENT 'stock keeping unit',
  name Nullable(String) COMMENT 'as it is now',
  category Nullable(String) COMMENT 'as it is now',
  price Decimal(12, 3) COMMENT 'list price now',
  orders UInt64 COMMENT 'orders with it that are not cancelled',
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  sold_units Int64,
  returned_units Int64,
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (product_id) COMMENT 'Products, also those never sold; measures as in line_facts; read with FINAL';

CREATE TABLE cdc._rejects (
  schema_name String,
  table_name String,
  key String COMMENT 'primary key of the row as JSON',
  column_name String,
  value String COMMENT 'as PostgreSQL wrote it',
  version UInt128 COMMENT '_version of the row',
  reason String,
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (schema_name, table_name, at) COMMENT 'Values that were not stored as they are; a replay may repeat a row';

CREATE TABLE cdc._rollup_lock (
  number UInt64,
  event LowCardinality(String) COMMENT 'claim, alive or release',
  owner String,
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (number, event) COMMENT 'Who keeps the rollups up to date; one claim a number';

CREATE TABLE cdc._rollup_runs (
  run UInt64 COMMENT 'rises; rows of a higher one count',
  event LowCardinality(String) COMMENT 'begin or end',
  claim UInt64 COMMENT 'of the lock that it ran under',
  marks UInt64 COMMENT 'changed rows of the sources',
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (run, event) COMMENT 'One begin and one end a run; a run without an end was broken off, and done again by the next one';

CREATE TABLE cdc._rollup_watermark (
  one UInt8 COMMENT 'there is one row, 0',
  complete_up_to Nullable(DateTime64(6, 'UTC')) COMMENT 'every change committed up to here, in every table that rollups are of, is in all rollups; NULL when unknown',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (one) COMMENT 'How far the rollups are complete; read with FINAL';

CREATE TABLE cdc._rollups (
  name String COMMENT 'a rollup, or a table of the source that rollups are computed from',
  state LowCardinality(String) COMMENT 'filled or filling; of a source: attached',
  target String COMMENT 'of a source: UUID of the table whose rows are marked',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (name) COMMENT 'How far each rollup is; read with FINAL';

CREATE TABLE cdc._sales_days_v1 (
  day Date32 COMMENT 'in UTC',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  gross_sales Decimal(38, 3),
  returns_total Decimal(38, 3),
  cancelled_total Decimal(38, 3),
  revenue Decimal(38, 3),
  customers Array(Int64) COMMENT 'known customers with a sales order',
  customer_count UInt64 COMMENT 'how many these are',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is on this day',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (day) COMMENT 'Sales by day in UTC; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._sales_facts_v1 (
  order_id Int64 COMMENT 'orders.id',
  is_line UInt8 COMMENT '0: the order itself, 1: a line of it',
  line_id Int64 COMMENT 'order_items.id',
  at DateTime64(6, 'UTC') COMMENT 'an order counts when it was placed, a line at its own moment',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  class LowCardinality(String) COMMENT 'of the order: sale, cancelled or return',
  product_id Int64 COMMENT 'products.id; 0 in the order itself',
  quantity Int32 COMMENT 'negative in returns; 0 in the order itself',
  unit_price Decimal(12, 3) COMMENT 'what it was sold at; 0 in the order itself',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  sold_units Int64 COMMENT 'quantity in a sale',
  returned_units Int64 COMMENT 'what a return took back, as a positive number',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (order_id, is_line, line_id) COMMENT 'One row an order and one row an order line whose order is known, with what it adds to each measure; read with FINAL';

CREATE TABLE cdc._sales_facts_v1_images (
  order_id Int64 COMMENT 'orders.id',
  is_line UInt8 COMMENT '0: the order itself, 1: a line of it',
  line_id Int64 COMMENT 'order_items.id',
  at DateTime64(6, 'UTC') COMMENT 'an order counts when it was placed, a line at its own moment',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  class LowCardinality(String) COMMENT 'of the order: sale, cancelled or return',
  product_id Int64 COMMENT 'products.id; 0 in the order itself',
  quantity Int32 COMMENT 'negative in returns; 0 in the order itself',
  unit_price Decimal(12, 3) COMMENT 'what it was sold at; 0 in the order itself',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  sold_units Int64 COMMENT 'quantity in a sale',
  returned_units Int64 COMMENT 'what a return took back, as a positive number',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = MergeTree ORDER BY () COMMENT 'What the run under way changes in _sales_facts_v1: rows as they were (_is_deleted 1), and as they are';

CREATE TABLE cdc._sales_months_v1 (
  month Date32 COMMENT 'its first day, in UTC',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  gross_sales Decimal(38, 3),
  returns_total Decimal(38, 3),
  cancelled_total Decimal(38, 3),
  revenue Decimal(38, 3),
  customers UInt64 COMMENT 'known customers with a sales order',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is in this month',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (month) COMMENT 'Sales by month in UTC; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._sales_slots_v1 (
  slot DateTime64(0, 'UTC') COMMENT 'start of five minutes',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  gross_sales Decimal(38, 3),
  returns_total Decimal(38, 3),
  cancelled_total Decimal(38, 3),
  revenue Decimal(38, 3),
  customers Array(Int64) COMMENT 'known customers with a sales order',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (slot) COMMENT 'Sales by five minutes; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._schema_changes (
  schema_name String,
  table_name String,
  oid UInt32 COMMENT 'of the table at the source: it stays when the table is renamed',
  since UInt128 COMMENT '_version from which rows are as this definition says',
  kind LowCardinality(String) COMMENT 'read, in place, note, park or gone',
  change String COMMENT 'what changed, in words',
  views Array(String) COMMENT 'views that used what changed, as found before it was applied',
  generation UInt32 COMMENT 'of the target table',
  schema_id String COMMENT 'its row in _schemas',
  source String COMMENT 'what the catalog of the source said, as JSON',
  at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (oid, since, schema_name, table_name) COMMENT 'Definitions of the source tables by the version they hold from; read with FINAL';

CREATE TABLE cdc._schemas (
  schema_id String,
  schema_name String,
  table_name String,
  definition String COMMENT 'columns, types and key as JSON',
  created_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (schema_id) COMMENT 'Definitions of the source tables; read with FINAL';

CREATE TABLE cdc._slot (
  pipeline String,
  at DateTime64(6, 'UTC'),
  level LowCardinality(String) COMMENT 'good, warning, critical or lost',
  retained_bytes UInt64,
  safe_bytes Nullable(Int64) COMMENT 'until WAL is lost; NULL where max_slot_wal_keep_size sets no limit',
  bytes_per_second Float64 COMMENT 'by how much more is kept, over the last two minutes',
  seconds_to_loss Nullable(Float64) COMMENT 'if that goes on; NULL where it does not come to that'
) ENGINE = MergeTree ORDER BY (pipeline, at) COMMENT 'A look at the slot every five seconds while a capture runs';

CREATE TABLE cdc._snapshot_chunks (
  pipeline String,
  point UInt64 COMMENT 'LSN at which the snapshot began',
  oid UInt32,
  chunk UInt32,
  read_at_point UInt64 COMMENT 'LSN that its rows are of: where the snapshot went on after a crash, a later one',
  rows UInt64,
  bytes UInt64,
  at DateTime64(6, 'UTC')
) ENGINE = MergeTree ORDER BY (pipeline, point, oid, chunk) COMMENT 'Chunks whose rows are all there; one row for each time that one was read';

CREATE TABLE cdc._snapshots (
  pipeline String,
  point UInt64 COMMENT 'LSN at which the snapshot began: its first point',
  schema_name String,
  table_name String,
  oid UInt32,
  schema_id String COMMENT 'its row in _schemas',
  source String COMMENT 'what the catalog of the source said, as JSON',
  blocks UInt32 COMMENT 'of PostgreSQL\'s heap in each chunk; 0: the table is one chunk',
  chunks UInt32,
  at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (pipeline, point, oid) COMMENT 'Tables of a snapshot and how they are divided; read with FINAL';

CREATE TABLE cdc._source (
  pipeline String,
  system_identifier String,
  timeline UInt32,
  transport String COMMENT 'kafka with its topic prefix, or direct: another one cannot go on where this one stood',
  epoch UInt16 COMMENT 'rises whenever positions may start again lower',
  consistent_point UInt64 COMMENT 'LSN the slot began at',
  snapshot_done UInt8,
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (pipeline) COMMENT 'The source a pipeline follows; read with FINAL';

CREATE TABLE cdc._tables (
  schema_name String,
  table_name String,
  target String COMMENT 'the table in this database that its view shows',
  state LowCardinality(String) COMMENT 'snapshot, streaming, parked or dropped',
  reason String COMMENT 'why it is read again, parked or dropped; empty otherwise',
  needs_read UInt8 COMMENT 'parked at the source: it is read again when it can be',
  snapshot_position UInt64 COMMENT 'LSN of the consistent point its rows were read at',
  schema_id String COMMENT 'what its view shows: a row in _schemas; empty before there is one',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (schema_name, table_name) COMMENT 'Replicated tables and their state; read with FINAL';

CREATE TABLE cdc._top_customers_v1 (
  list UInt8 COMMENT 'there is one, 0',
  rank UInt64 COMMENT 'by sales_orders, then revenue, then customer_id',
  customer_id Int64 COMMENT 'customers.id',
  name String COMMENT 'as it is now',
  country String COMMENT 'of the customer',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  _run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more'
) ENGINE = ReplacingMergeTree ORDER BY (list, rank) COMMENT 'The first 50 customers; measures as in sales_facts; read with FINAL';

CREATE TABLE cdc._topics (
  pipeline String,
  topic String,
  partitions UInt16 COMMENT 'by which keys are routed; the topic may have got more since',
  ends Array(UInt64) COMMENT 'offset behind the last message of each partition, of those that were acknowledged',
  version UInt64
) ENGINE = ReplacingMergeTree ORDER BY (pipeline, topic) COMMENT 'Topics of Kafka as capture left them; read with FINAL';

CREATE TABLE cdc._watermarks (
  schema_name String,
  table_name String,
  position UInt64 COMMENT 'LSN',
  complete_up_to DateTime64(6, 'UTC') COMMENT 'every change committed up to here is visible',
  newest_commit Nullable(DateTime64(6, 'UTC')) COMMENT 'newest commit of this table known at the source',
  updated_at DateTime64(6, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (schema_name, table_name) COMMENT 'How far each table is complete; read with FINAL';

CREATE VIEW ecommerce_analytics.customer_metrics (
  customer_id Int64 COMMENT 'customers.id',
  name String COMMENT 'as it is now',
  country String COMMENT 'of the customer',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  days_since_last_order Int64 COMMENT 'calendar days in UTC from last_order_at to today',
  is_returning Bool COMMENT 'more than one sales order'
) COMMENT 'One row a customer with at least one order of any status';

CREATE VIEW ecommerce_analytics.customers (
  id Int64,
  external_id Nullable(String),
  name String,
  email Nullable(String),
  country String,
  address Nullable(String),
  created_at DateTime64(6, 'UTC'),
  updated_at DateTime64(6, 'UTC')
);

CREATE VIEW ecommerce_analytics.daily_sales_summary (
  day Date32 COMMENT 'in UTC',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  customers UInt64 COMMENT 'known customers with a sales order in this period',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is in this period',
  returning_customers UInt64 COMMENT 'customers - first_time_customers'
) COMMENT 'Sales by day in UTC: one row a day with an order or a line';

CREATE VIEW ecommerce_analytics.data_freshness (
  table_name String COMMENT 'schema and table at the source; metrics stands for the views of sales, customers and products',
  newest_commit Nullable(DateTime64(6, 'UTC')) COMMENT 'newest commit of this table known at the source',
  newest_visible Nullable(DateTime64(6, 'UTC')) COMMENT 'newest commit that ClickHouse shows; NULL when that is not known',
  lag_seconds Nullable(Float64) COMMENT 'from commit to visible, for the newest commit of the newest batch',
  p95_lag_seconds Nullable(Float64) COMMENT 'from commit to visible, for the oldest commit of each batch, 95th percentile over 5 minutes',
  complete_up_to Nullable(DateTime64(6, 'UTC')) COMMENT 'every change committed up to here is visible; NULL when unknown',
  seconds_behind Nullable(Float64) COMMENT 'now - complete_up_to',
  state LowCardinality(String) COMMENT 'ok, late, idle, unknown or parked',
  reason String COMMENT 'why it is not ok; empty when it is',
  rows_last_5_min UInt64 COMMENT 'row versions that became visible in the last 5 minutes'
) COMMENT 'One row a replicated table, and one for the metrics: late (more than 30 s behind, or without changes that could not be applied) and idle (complete, nothing new for 5 minutes) are different things';

CREATE VIEW ecommerce_analytics.first_sales (
  customer_id Int64 COMMENT 'customers.id',
  at DateTime64(6, 'UTC') COMMENT 'when the first sales order was placed'
) COMMENT 'One row a customer with at least one sales order';

CREATE VIEW ecommerce_analytics.hourly_orders_trend (
  hour DateTime('UTC') COMMENT 'hour in UTC; the last one is still running',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  customers UInt64 COMMENT 'known customers with a sales order in this hour'
) COMMENT 'The current hour in UTC and the 23 before it; hours without orders are zeros';

CREATE VIEW ecommerce_analytics.line_facts (
  line_id Int64 COMMENT 'order_items.id',
  order_id Int64 COMMENT 'orders.id',
  product_id Int64 COMMENT 'products.id',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  at DateTime64(6, 'UTC') COMMENT 'moment of the line: order_items.ordered_at',
  class LowCardinality(String) COMMENT 'of its order: sale, cancelled or return',
  quantity Int64 COMMENT 'negative in returns',
  units Int64 COMMENT 'quantity, 0 when the order is cancelled',
  sold_units Int64 COMMENT 'quantity in a sale',
  returned_units Int64 COMMENT 'what a return took back, as a positive number',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price',
  gross_sales Decimal(38, 3) COMMENT 'line_total in a sale',
  returns_total Decimal(38, 3) COMMENT 'line_total in a return',
  cancelled_total Decimal(38, 3) COMMENT 'line_total in a cancelled order',
  revenue Decimal(38, 3) COMMENT 'line_total, 0 when the order is cancelled'
) COMMENT 'One row an order line whose order is known, with what it adds to each measure';

CREATE VIEW ecommerce_analytics.monthly_sales_summary (
  month Date32 COMMENT 'first day of the month in UTC',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  customers UInt64 COMMENT 'known customers with a sales order in this period',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is in this period',
  returning_customers UInt64 COMMENT 'customers - first_time_customers'
) COMMENT 'Sales by month in UTC: one row a month with an order or a line';

CREATE VIEW ecommerce_analytics.order_facts (
  order_id Int64 COMMENT 'orders.id',
  order_no String COMMENT 'as the shop prints it',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  at DateTime64(6, 'UTC') COMMENT 'when it was placed: orders.created_at',
  country String COMMENT 'of the order',
  status LowCardinality(String) COMMENT 'as it is now',
  class LowCardinality(String) COMMENT 'sale, cancelled or return; a refunded order stays a sale, its return order nets it',
  sales_orders UInt8 COMMENT '1 for a sale',
  cancelled_orders UInt8 COMMENT '1 for a cancelled order',
  return_orders UInt8 COMMENT '1 for a return'
) COMMENT 'One row an order in GBP, with its class';

CREATE VIEW ecommerce_analytics.order_items (
  id Int64,
  order_id Int64,
  line_no Int32,
  product_id Int64,
  description Nullable(String),
  quantity Int32,
  unit_price Decimal(12, 3),
  ordered_at DateTime64(6, 'UTC')
);

CREATE VIEW ecommerce_analytics.orders (
  id Int64,
  order_no String,
  customer_id Nullable(Int64),
  status LowCardinality(String),
  country String,
  currency Nullable(String),
  returns_order_id Nullable(Int64),
  created_at DateTime64(6, 'UTC'),
  updated_at DateTime64(6, 'UTC')
);

CREATE VIEW ecommerce_analytics.other_currencies (
  currency LowCardinality(String) COMMENT 'orders.currency, empty where that is NULL; that of the business is GBP',
  orders UInt64 COMMENT 'in it, of every status',
  newest_at DateTime64(6, 'UTC') COMMENT 'when the newest of them was placed'
) COMMENT 'One row a currency other than GBP; empty where all amounts have a sum';

CREATE VIEW ecommerce_analytics.pipeline_lag (
  at DateTime64(6, 'UTC') COMMENT 'when the batch became visible',
  table_name String COMMENT 'schema and table at the source',
  lag_seconds Float64 COMMENT 'from commit to visible, for the newest commit of the batch',
  worst_lag_seconds Float64 COMMENT 'from commit to visible, for the oldest commit of the batch',
  rows UInt64 COMMENT 'row versions in the batch'
) COMMENT 'One row a table and insert of the last 30 days; always filter by at';

CREATE VIEW ecommerce_analytics.product_performance (
  product_id Int64 COMMENT 'products.id',
  sku String COMMENT 'stock keeping unit',
  name Nullable(String) COMMENT 'as it is now',
  category Nullable(String) COMMENT 'as it is now',
  price Decimal(12, 3) COMMENT 'list price now; lines keep the price they were sold at',
  orders UInt64 COMMENT 'orders with it that are not cancelled',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  returned_units Int64 COMMENT 'units in return orders, as a positive number',
  return_rate Nullable(Float64) COMMENT 'returned units / units sold, 0.1 is 10 %; above 1 when earlier sales are not in the data; NULL when units sold are not above 0',
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order'
) COMMENT 'One row a product, also those never sold';

CREATE VIEW ecommerce_analytics.products (
  id Int64,
  sku String,
  name Nullable(String),
  category Nullable(String),
  price Decimal(12, 3),
  attributes String,
  description Nullable(String),
  created_at DateTime64(6, 'UTC'),
  updated_at DateTime64(6, 'UTC')
);

CREATE VIEW ecommerce_analytics.recent_activity (
  at DateTime64(6, 'UTC') COMMENT 'when it was placed',
  order_id Int64 COMMENT 'orders.id',
  order_no String COMMENT 'as the shop prints it',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  customer_name Nullable(String) COMMENT 'NULL for a guest',
  country String COMMENT 'of the order',
  status LowCardinality(String) COMMENT 'as it is now',
  lines UInt64 COMMENT 'order lines',
  total Decimal(38, 3) COMMENT 'quantity x unit_price over its lines, whatever its status'
) COMMENT 'Orders placed in the last 24 hours, newest first';

CREATE VIEW ecommerce_analytics.sales_facts (
  at DateTime64(6, 'UTC') COMMENT 'an order counts when it was placed, a line at its own moment',
  order_id Int64 COMMENT 'orders.id',
  line_id Int64 COMMENT 'order_items.id; 0 in the row of the order itself',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  product_id Int64 COMMENT 'products.id; 0 in the row of the order itself',
  class LowCardinality(String) COMMENT 'of the order: sale, cancelled or return',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  quantity Int64 COMMENT 'negative in returns',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  sold_units Int64 COMMENT 'quantity in a sale',
  returned_units Int64 COMMENT 'what a return took back, as a positive number',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count'
) COMMENT 'One row an order and one row an order line; sum the measures over any group';

CREATE VIEW ecommerce_analytics.slot_health (
  at DateTime64(6, 'UTC') COMMENT 'when it was looked at; every five seconds while a capture runs',
  pipeline String COMMENT 'the slot',
  level LowCardinality(String) COMMENT 'good, warning, critical, or lost: then all tables are read again',
  retained_bytes UInt64 COMMENT 'WAL that PostgreSQL keeps for the slot',
  safe_bytes Nullable(Int64) COMMENT 'bytes until WAL is lost; NULL where max_slot_wal_keep_size sets no limit',
  bytes_per_second Float64 COMMENT 'by how much more is kept, over the last two minutes',
  seconds_to_loss Nullable(Float64) COMMENT 'if that goes on; NULL where it does not come to that'
) COMMENT 'One row each time the slot was looked at, of the last 30 days; always filter by at';

CREATE VIEW ecommerce_analytics.top_customers_by_orders (
  rank UInt64 COMMENT '1 is first',
  customer_id Int64 COMMENT 'customers.id',
  name String COMMENT 'as it is now',
  country String COMMENT 'of the customer',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  days_since_last_order Int64 COMMENT 'calendar days in UTC from last_order_at to today',
  is_returning Bool COMMENT 'more than one sales order'
) COMMENT 'The top 50 customers by sales_orders, then revenue, then customer_id';

CREATE VIEW ecommerce_analytics.top_selling_products (
  rank UInt64 COMMENT '1 is first',
  product_id Int64 COMMENT 'products.id',
  sku String COMMENT 'stock keeping unit',
  name Nullable(String) COMMENT 'as it is now',
  category Nullable(String) COMMENT 'as it is now',
  price Decimal(12, 3) COMMENT 'list price now; lines keep the price they were sold at',
  orders UInt64 COMMENT 'orders with it that are not cancelled',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  returned_units Int64 COMMENT 'units in return orders, as a positive number',
  return_rate Nullable(Float64) COMMENT 'returned units / units sold, 0.1 is 10 %; above 1 when earlier sales are not in the data; NULL when units sold are not above 0',
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order'
) COMMENT 'The top 20 products by units, then revenue, then product_id';
