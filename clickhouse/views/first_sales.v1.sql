-- version: 1
-- what: when each known customer bought for the first time
-- requires: order_facts_v1
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.first_sales_v1 {on_cluster} (
  customer_id Int64 COMMENT 'customers.id',
  at DateTime64(6, 'UTC') COMMENT 'when the first sales order was placed'
) SQL SECURITY DEFINER AS
SELECT assumeNotNull(customer_id) AS customer_id, fromUnixTimestamp64Micro(min(toUnixTimestamp64Micro(order_facts.at)), 'UTC') AS at
FROM {analytics}.order_facts_v1 AS order_facts
WHERE sales_orders = 1 AND order_facts.customer_id IS NOT NULL
GROUP BY customer_id
COMMENT 'One row a customer with at least one sales order';
