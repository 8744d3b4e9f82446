-- version: 1
-- what: the first 50 customers
-- bucket: list
-- from: _customer_sales_v1(toUInt8(0))
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._top_customers_v1 {on_cluster} (
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
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (list, rank) SETTINGS index_granularity = 64
COMMENT 'The first 50 customers; measures as in sales_facts; read with FINAL';

SELECT
  toUInt8(0) AS list,
  row_number() OVER (ORDER BY sales_orders DESC, revenue DESC, customer_id) AS rank,
  customer_id,
  name,
  country,
  orders,
  sales_orders,
  cancelled_orders,
  return_orders,
  lines,
  units,
  line_total,
  revenue,
  first_order_at,
  last_order_at
FROM (
  SELECT *
  FROM {cdc}._customer_sales_v1 FINAL
  WHERE customer_id IN (
    SELECT customer_id
    FROM {cdc}._customer_sales_v1 FINAL
    ORDER BY sales_orders DESC, revenue DESC, customer_id
    LIMIT 50
  )
)
WHERE list IN {dirty};
