-- version: 1
-- what: order lines by their order
-- bucket: line_id
-- from: order_items(id)
-- requires: order_items(id, order_id, product_id, quantity, unit_price, ordered_at)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._order_lines_v1 {on_cluster} (
  order_id Int64 COMMENT 'order_items.order_id',
  line_id Int64 COMMENT 'order_items.id',
  product_id Int64 COMMENT 'order_items.product_id',
  quantity Int32 COMMENT 'negative in returns',
  unit_price Decimal(12, 3) COMMENT 'what it was sold at',
  at DateTime64(6, 'UTC') COMMENT 'order_items.ordered_at',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (order_id, line_id) SETTINGS index_granularity = 128, min_bytes_for_wide_part = 1000000000000
COMMENT 'Order lines by their order; read with FINAL';

SELECT order_id, id AS line_id, product_id, quantity, unit_price, ordered_at AS at
FROM {analytics}.order_items
WHERE id IN {dirty};
