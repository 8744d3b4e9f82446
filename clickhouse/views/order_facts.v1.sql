-- version: 1
-- what: every order in the currency of the business, with its class; the one place that says what is a sale, a cancellation or a return
-- requires: orders(id, order_no, customer_id, status, country, created_at, currency)
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.order_facts_v1 {on_cluster} (
  order_id Int64 COMMENT 'orders.id',
  order_no String COMMENT 'as the shop prints it',
  customer_id Nullable(Int64) COMMENT 'NULL for a guest',
  at DateTime64(6, 'UTC') COMMENT 'when it was placed: orders.created_at',
  country String COMMENT 'of the order',
  status LowCardinality(String) COMMENT 'as it is now',
  class LowCardinality(String) COMMENT 'sale, cancelled or return; a refunded order stays a sale, its return order nets it',
  sales_orders UInt8 COMMENT '1 for a sale',
  cancelled_orders UInt8 COMMENT '1 for a cancelled order',
  return_orders UInt8 COMMENT '1 for a return'
) SQL SECURITY DEFINER AS
SELECT
  id AS order_id,
  order_no,
  customer_id,
  created_at AS at,
  country,
  status,
  multiIf(status = 'cancelled', 'cancelled', status = 'return', 'return', 'sale') AS class,
  class = 'sale' AS sales_orders,
  class = 'cancelled' AS cancelled_orders,
  class = 'return' AS return_orders
FROM {analytics}.orders
-- Amounts of two currencies have no sum: other_currencies tells of what is left out.
WHERE currency = '{currency}'
COMMENT 'One row an order in {currency}, with its class';
