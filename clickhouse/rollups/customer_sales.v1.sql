-- version: 1
-- what: what each customer ordered
-- bucket: customer_id
-- from: _customer_orders_v1(customer_id), customers(id)
-- requires: customers(id, name, country)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._customer_sales_v1 {on_cluster} (
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
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY customer_id SETTINGS index_granularity = 512
COMMENT 'Customers with an order; measures as in sales_facts; read with FINAL';

SELECT
  bought.customer_id AS customer_id,
  customers.name AS name,
  customers.country AS country,
  bought.orders AS orders,
  bought.sales_orders AS sales_orders,
  bought.cancelled_orders AS cancelled_orders,
  bought.return_orders AS return_orders,
  bought.lines AS lines,
  bought.units AS units,
  bought.line_total AS line_total,
  bought.revenue AS revenue,
  bought.first_order_at AS first_order_at,
  bought.last_order_at AS last_order_at
FROM (
  SELECT
    customer_id,
    sum(orders.orders) AS orders,
    sum(orders.sales_orders) AS sales_orders,
    sum(orders.cancelled_orders) AS cancelled_orders,
    sum(orders.return_orders) AS return_orders,
    sum(orders.lines) AS lines,
    sum(orders.units) AS units,
    sum(orders.line_total) AS line_total,
    sum(orders.revenue) AS revenue,
    min(at) AS first_order_at,
    max(at) AS last_order_at
  FROM {cdc}._customer_orders_v1 AS orders FINAL
  WHERE customer_id IN {dirty}
  GROUP BY customer_id
) AS bought
INNER JOIN (SELECT id, name, country FROM {analytics}.customers WHERE id IN {dirty}) AS customers ON customers.id = bought.customer_id;
