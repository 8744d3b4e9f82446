-- version: 1
-- what: every order with its lines, as far as measures are made of them
-- bucket: order_id
-- from: orders(id), _order_lines_v1(order_id)
-- compared: yes
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
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (order_id, is_line, line_id) SETTINGS index_granularity = 512
COMMENT 'One row an order and one row an order line whose order is known; read with FINAL';

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
