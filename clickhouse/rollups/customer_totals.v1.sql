-- version: 1
-- what: what each customer ordered, be the customer known or not
-- bucket: customer_id
-- from: _customer_orders_v1(customer_id)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._customer_totals_v1 {on_cluster} (
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
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY customer_id SETTINGS index_granularity = 128
COMMENT 'Customers with an order; measures as in sales_facts; read with FINAL';

SELECT
  customer_id,
  sum(parts.orders) AS orders,
  sum(parts.sales_orders) AS sales_orders,
  sum(parts.cancelled_orders) AS cancelled_orders,
  sum(parts.return_orders) AS return_orders,
  sum(parts.lines) AS lines,
  sum(parts.units) AS units,
  sum(parts.line_total) AS line_total,
  sum(parts.revenue) AS revenue,
  min(at) AS first_order_at,
  max(at) AS last_order_at,
  minOrNullIf(at, parts.sales_orders > 0) AS first_sale_at
FROM {cdc}._customer_orders_v1 AS parts FINAL
WHERE customer_id IN {dirty}
GROUP BY customer_id;

-- The same from what changed: what a customer had, without what the orders were, and with what they are.
WITH
  images AS (
    SELECT *, assumeNotNull(customer_id) AS customer FROM {images of _sales_facts_v1} WHERE customer_id IS NOT NULL
  ),
  -- Customers of whom an order is taken back: which is the first then, and the last, only their orders know.
  doubtful AS (SELECT customer FROM images WHERE orders = 1 GROUP BY customer, order_id, at, class HAVING sum(_sign) < 0)
SELECT
  customer_id,
  sum(parts.orders) AS orders,
  sum(parts.sales_orders) AS sales_orders,
  sum(parts.cancelled_orders) AS cancelled_orders,
  sum(parts.return_orders) AS return_orders,
  sum(parts.lines) AS lines,
  sum(parts.units) AS units,
  sum(parts.line_total) AS line_total,
  sum(parts.revenue) AS revenue,
  assumeNotNull(min(parts.first_order_at)) AS first_order_at,
  assumeNotNull(max(parts.last_order_at)) AS last_order_at,
  min(parts.first_sale_at) AS first_sale_at
FROM (
  SELECT
    customer_id,
    toInt64(was.orders) AS orders,
    toInt64(was.sales_orders) AS sales_orders,
    toInt64(was.cancelled_orders) AS cancelled_orders,
    toInt64(was.return_orders) AS return_orders,
    toInt64(was.lines) AS lines,
    units,
    line_total,
    revenue,
    toNullable(was.first_order_at) AS first_order_at,
    toNullable(was.last_order_at) AS last_order_at,
    first_sale_at
  FROM {cdc}._customer_totals_v1 AS was FINAL
  WHERE customer_id IN {dirty} AND customer_id NOT IN doubtful
  UNION ALL
  SELECT
    customer,
    _sign * toInt64(images.orders),
    _sign * toInt64(images.sales_orders),
    _sign * toInt64(images.cancelled_orders),
    _sign * toInt64(images.return_orders),
    _sign * toInt64(images.lines),
    _sign * images.units,
    _sign * images.line_total,
    _sign * images.revenue,
    if(_sign = 1 AND images.orders = 1, at, NULL),
    if(_sign = 1 AND images.orders = 1, at, NULL),
    if(_sign = 1 AND images.sales_orders = 1, at, NULL)
  FROM images
  WHERE customer NOT IN doubtful
  UNION ALL
  SELECT
    customer_id,
    toInt64(orders),
    toInt64(sales_orders),
    toInt64(cancelled_orders),
    toInt64(return_orders),
    toInt64(lines),
    units,
    line_total,
    revenue,
    at,
    at,
    if(sales_orders > 0, at, NULL)
  FROM {cdc}._customer_orders_v1 FINAL
  WHERE customer_id IN doubtful
) AS parts
GROUP BY customer_id
HAVING sum(parts.orders) > 0;
