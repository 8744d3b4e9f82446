-- version: 2
-- what: every order line with its order's class and what it adds to each measure
-- requires: sales_facts_v2
-- changed: reads _sales_facts_v1, which is kept up to date, instead of orders and lines
CREATE OR REPLACE VIEW {analytics}.line_facts_v2 {on_cluster} (
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
) SQL SECURITY DEFINER AS
SELECT
  line_id,
  order_id,
  product_id,
  customer_id,
  at,
  class,
  quantity,
  units,
  sold_units,
  returned_units,
  line_total,
  gross_sales,
  returns_total,
  cancelled_total,
  revenue
FROM {analytics}.sales_facts_v2
WHERE lines = 1
COMMENT 'One row an order line whose order is known, with what it adds to each measure';
