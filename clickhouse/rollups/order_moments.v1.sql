-- version: 1
-- what: what each order adds to the five minutes that it and its lines are in
-- bucket: order_id
-- from: _sales_facts_v1(order_id)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._order_moments_v1 {on_cluster} (
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
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (slot, order_id) SETTINGS index_granularity = 512
COMMENT 'One row an order and five minutes; measures as in sales_facts; read with FINAL';

SELECT
  -- Of a moment before 1970 or behind 2105 toStartOfFiveMinutes() gives another one.
  toDateTime64(at - toIntervalMicrosecond(positiveModulo(toUnixTimestamp64Micro(at), 300000000)), 0, 'UTC') AS slot,
  order_id,
  any(facts.customer_id) AS customer_id,
  sum(facts.orders) AS orders,
  sum(facts.sales_orders) AS sales_orders,
  sum(facts.cancelled_orders) AS cancelled_orders,
  sum(facts.return_orders) AS return_orders,
  sum(facts.lines) AS lines,
  sum(facts.units) AS units,
  sum(facts.line_total) AS line_total,
  sum(facts.gross_sales) AS gross_sales,
  sum(facts.returns_total) AS returns_total,
  sum(facts.cancelled_total) AS cancelled_total,
  sum(facts.revenue) AS revenue
FROM {rows of _sales_facts_v1} AS facts
GROUP BY slot, order_id;
