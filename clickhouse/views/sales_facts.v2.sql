-- version: 2
-- what: orders and lines in one stream of additive measures, each at its own moment
-- requires: _sales_facts_v1
-- changed: reads _sales_facts_v1, which is kept up to date; has the columns of line_facts too
CREATE OR REPLACE VIEW {analytics}.sales_facts_v2 {on_cluster} (
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
) SQL SECURITY DEFINER AS
SELECT
  at,
  order_id,
  line_id,
  customer_id,
  product_id,
  class,
  orders,
  sales_orders,
  cancelled_orders,
  return_orders,
  lines,
  toInt64(quantity) AS quantity,
  units,
  sold_units,
  returned_units,
  line_total,
  gross_sales,
  returns_total,
  cancelled_total,
  revenue
FROM {cdc}._sales_facts_v1 FINAL
COMMENT 'One row an order and one row an order line; sum the measures over any group';
