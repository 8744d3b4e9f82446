-- version: 1
-- what: how each product sells and comes back
-- bucket: product_id
-- from: _product_months_v1(product_id)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._product_sales_v1 {on_cluster} (
  product_id Int64 COMMENT 'products.id',
  orders UInt64 COMMENT 'orders with it that are not cancelled',
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  sold_units Int64,
  returned_units Int64,
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY product_id SETTINGS index_granularity = 512
COMMENT 'Products with a line; measures as in line_facts; read with FINAL';

SELECT
  product_id,
  sum(parts.orders) AS orders,
  sum(parts.lines) AS lines,
  sum(parts.units) AS units,
  sum(parts.line_total) AS line_total,
  sum(parts.revenue) AS revenue,
  sum(parts.sold_units) AS sold_units,
  sum(parts.returned_units) AS returned_units,
  min(parts.first_sold_at) AS first_sold_at,
  max(parts.last_sold_at) AS last_sold_at
FROM {cdc}._product_months_v1 AS parts FINAL
WHERE product_id IN {dirty}
GROUP BY product_id;
