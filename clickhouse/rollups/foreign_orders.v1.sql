-- version: 1
-- what: orders in another currency than that of the business
-- bucket: order_id
-- from: orders(id)
-- requires: orders(id, created_at, currency)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._foreign_orders_v1 {on_cluster} (
  order_id Int64 COMMENT 'orders.id',
  currency LowCardinality(String) COMMENT 'orders.currency; empty where that is NULL',
  at DateTime64(6, 'UTC') COMMENT 'when it was placed',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY order_id SETTINGS index_granularity = 512
COMMENT 'Orders that are not in {currency}; read with FINAL';

SELECT id AS order_id, ifNull(orders.currency, '') AS currency, created_at AS at
FROM {analytics}.orders AS orders
WHERE id IN {dirty} AND ifNull(orders.currency, '') != '{currency}';
