-- version: 1
-- what: what each order adds to its customer
-- bucket: order_id
-- from: _sales_facts_v1(order_id)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._customer_orders_v1 {on_cluster} (
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
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (customer_id, order_id) SETTINGS index_granularity = 128, min_bytes_for_wide_part = 1000000000000
COMMENT 'Orders of known customers; measures as in sales_facts; read with FINAL';

SELECT
  assumeNotNull(facts.customer_id) AS customer_id,
  order_id,
  maxIf(at, facts.orders = 1) AS at,
  sum(facts.orders) AS orders,
  sum(facts.sales_orders) AS sales_orders,
  sum(facts.cancelled_orders) AS cancelled_orders,
  sum(facts.return_orders) AS return_orders,
  sum(facts.lines) AS lines,
  sum(facts.units) AS units,
  sum(facts.line_total) AS line_total,
  sum(facts.revenue) AS revenue
FROM {rows of _sales_facts_v1} AS facts
WHERE facts.customer_id IS NOT NULL
GROUP BY customer_id, order_id;
