-- version: 1
-- what: what each order adds to its products
-- bucket: order_id
-- from: _sales_facts_v1(order_id)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._product_orders_v1 {on_cluster} (
  product_id Int64 COMMENT 'products.id',
  order_id Int64 COMMENT 'orders.id',
  orders UInt64 COMMENT '1 where it is not cancelled',
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  sold_units Int64,
  returned_units Int64,
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (product_id, order_id) SETTINGS index_granularity = 128, min_bytes_for_wide_part = 1000000000000
COMMENT 'Orders by product; measures as in line_facts; read with FINAL';

SELECT
  product_id,
  order_id,
  toUInt64(any(class) != 'cancelled') AS orders,
  count() AS lines,
  sum(facts.units) AS units,
  sum(facts.line_total) AS line_total,
  sum(facts.revenue) AS revenue,
  sum(facts.sold_units) AS sold_units,
  sum(facts.returned_units) AS returned_units,
  minOrNullIf(at, class = 'sale') AS first_sold_at,
  maxOrNullIf(at, class = 'sale') AS last_sold_at
FROM {rows of _sales_facts_v1} AS facts
WHERE facts.lines = 1
GROUP BY product_id, order_id;
