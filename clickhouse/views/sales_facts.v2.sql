-- version: 2
-- what: orders and lines in one stream of additive measures, each at its own moment
-- requires: order_facts_v1, line_facts_v2
-- changed: reads line_facts_v2
CREATE OR REPLACE VIEW {analytics}.sales_facts_v2 {on_cluster} (
  at DateTime64(6, 'UTC') COMMENT 'an order counts when it was placed, a line at its own moment',
  order_id Int64 COMMENT 'orders.id',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
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
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count'
) SQL SECURITY DEFINER AS
SELECT
  at,
  order_id,
  customer_id,
  1 AS orders,
  sales_orders,
  cancelled_orders,
  return_orders,
  0 AS lines,
  toInt64(0) AS units,
  toDecimal128(0, 3) AS line_total,
  toDecimal128(0, 3) AS gross_sales,
  toDecimal128(0, 3) AS returns_total,
  toDecimal128(0, 3) AS cancelled_total,
  toDecimal128(0, 3) AS revenue
FROM {analytics}.order_facts_v1
UNION ALL
SELECT
  at,
  order_id,
  customer_id,
  0,
  0,
  0,
  0,
  1,
  units,
  line_total,
  gross_sales,
  returns_total,
  cancelled_total,
  revenue
FROM {analytics}.line_facts_v2
COMMENT 'One row an order and one row an order line; sum the measures over any group';
