-- version: 1
-- what: every order with its lines, as far as measures are made of them
-- bucket: order_id
-- from: orders(id), _order_lines_v1(order_id)
-- images: kept
-- requires: order_facts_v1
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._sales_facts_v1 {on_cluster} (
  order_id Int64 COMMENT 'orders.id',
  is_line UInt8 COMMENT '0: the order itself, 1: a line of it',
  line_id Int64 COMMENT 'order_items.id',
  at DateTime64(6, 'UTC') COMMENT 'an order counts when it was placed, a line at its own moment',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  class LowCardinality(String) COMMENT 'of the order: sale, cancelled or return',
  product_id Int64 COMMENT 'products.id; 0 in the order itself',
  quantity Int32 COMMENT 'negative in returns; 0 in the order itself',
  unit_price Decimal(12, 3) COMMENT 'what it was sold at; 0 in the order itself',
  orders UInt64 ALIAS is_line = 0 COMMENT 'orders placed, of every status',
  sales_orders UInt64 ALIAS is_line = 0 AND class = 'sale' COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 ALIAS is_line = 0 AND class = 'cancelled' COMMENT 'orders of status cancelled',
  return_orders UInt64 ALIAS is_line = 0 AND class = 'return' COMMENT 'orders of status return',
  lines UInt64 ALIAS is_line COMMENT 'order lines, of every status',
  -- An order itself has no quantity, and adds nothing to what follows.
  units Int64 ALIAS if(class = 'cancelled', 0, quantity) COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  sold_units Int64 ALIAS if(class = 'sale', quantity, 0) COMMENT 'quantity in a sale',
  returned_units Int64 ALIAS if(class = 'return', -toInt64(quantity), 0) COMMENT 'what a return took back, as a positive number',
  -- Decimal128 first: the product of a Decimal(12, 3) and an Int32 can pass what Decimal64 holds.
  line_total Decimal(38, 3) ALIAS toDecimal128(unit_price, 3) * quantity COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) ALIAS if(class = 'sale', line_total, 0) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) ALIAS if(class = 'return', line_total, 0) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) ALIAS if(class = 'cancelled', line_total, 0) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) ALIAS if(class = 'cancelled', 0, line_total) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (order_id, is_line, line_id) SETTINGS index_granularity = 128, min_bytes_for_wide_part = 1000000000000
COMMENT 'One row an order and one row an order line whose order is known, with what it adds to each measure; read with FINAL';

-- Here what changes no measure stops, such as an order that is delivered: all other rollups come behind it.
SELECT
  placed.order_id AS order_id,
  tupleElement(fact, 1) AS is_line,
  tupleElement(fact, 2) AS line_id,
  tupleElement(fact, 3) AS at,
  placed.customer_id AS customer_id,
  placed.class AS class,
  tupleElement(fact, 4) AS product_id,
  tupleElement(fact, 5) AS quantity,
  tupleElement(fact, 6) AS unit_price
FROM (SELECT order_id, at, customer_id, class FROM {analytics}.order_facts_v1 WHERE order_id IN {dirty}) AS placed
-- What a line counts for is not known before its order has arrived.
LEFT JOIN (
  SELECT order_id, groupArray((toUInt8(1), line_id, at, product_id, quantity, unit_price)) AS lines
  FROM {cdc}._order_lines_v1 FINAL
  WHERE order_id IN {dirty}
  GROUP BY order_id
) AS bought ON bought.order_id = placed.order_id
ARRAY JOIN arrayPushFront(bought.lines, (toUInt8(0), toInt64(0), placed.at, toInt64(0), toInt32(0), toDecimal64(0, 3))) AS fact;
