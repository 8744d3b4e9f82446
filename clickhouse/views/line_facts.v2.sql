-- version: 2
-- what: every order line with its order's class and what it adds to each measure
-- requires: _order_lines_v1, order_facts_v1
-- changed: reads the lines in the order of their orders, so that those of one order are found at once
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
  line.line_id AS line_id,
  line.order_id AS order_id,
  line.product_id AS product_id,
  placed.customer_id AS customer_id,
  line.at AS at,
  placed.class AS class,
  toInt64(line.quantity) AS quantity,
  if(class = 'cancelled', 0, quantity) AS units,
  if(class = 'sale', quantity, 0) AS sold_units,
  if(class = 'return', -quantity, 0) AS returned_units,
  -- Decimal128 first: the product of a Decimal(12, 3) and an Int32 can pass what Decimal64 holds.
  toDecimal128(line.unit_price, 3) * quantity AS line_total,
  if(class = 'sale', line_total, 0) AS gross_sales,
  if(class = 'return', line_total, 0) AS returns_total,
  if(class = 'cancelled', line_total, 0) AS cancelled_total,
  if(class = 'cancelled', 0, line_total) AS revenue
FROM {cdc}._order_lines_v1 AS line FINAL
-- Inner: what a line counts for is not known before its order has arrived.
INNER JOIN {analytics}.order_facts_v1 AS placed ON placed.order_id = line.order_id
COMMENT 'One row an order line whose order is known, with what it adds to each measure';
