-- version: 1
-- what: how each product sells and comes back
-- bucket: product_id
-- from: _product_orders_v1(product_id), products(id)
-- requires: products(id, sku, name, category, price)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._product_sales_v1 {on_cluster} (
  product_id Int64 COMMENT 'products.id',
  sku String COMMENT 'stock keeping unit',
  name Nullable(String) COMMENT 'as it is now',
  category Nullable(String) COMMENT 'as it is now',
  price Decimal(12, 3) COMMENT 'list price now',
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
COMMENT 'Products, also those never sold; measures as in line_facts; read with FINAL';

SELECT products.id AS product_id, products.* EXCEPT (id), sold.* EXCEPT (product_id)
FROM (SELECT id, sku, name, category, price FROM {analytics}.products WHERE id IN {dirty}) AS products
LEFT JOIN (
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
  FROM {cdc}._product_orders_v1 AS parts FINAL
  WHERE product_id IN {dirty}
  GROUP BY product_id
) AS sold ON sold.product_id = products.id;

-- The same from what changed: what a product had, without what its orders were, and with what they are.
WITH
  images AS (SELECT * FROM {images of _sales_facts_v1} WHERE lines = 1),
  was AS (SELECT * FROM {cdc}._product_sales_v1 FINAL WHERE product_id IN {dirty}),
  -- Products whose first or last sale is taken back, and those of which nothing is stored: their orders alone know.
  doubtful AS (
    SELECT gone.product_id AS id
    FROM (
      SELECT product_id, min(at) AS first_at, max(at) AS last_at
      FROM (SELECT product_id, order_id, at FROM images WHERE class = 'sale' GROUP BY product_id, order_id, at HAVING sum(_sign) < 0)
      GROUP BY product_id
    ) AS gone
    INNER JOIN was ON was.product_id = gone.product_id
    WHERE first_at <= first_sold_at OR last_at >= last_sold_at
    UNION ALL
    SELECT id FROM {analytics}.products WHERE id IN {dirty} AND id NOT IN (SELECT product_id FROM was)
  )
SELECT products.id AS product_id, products.* EXCEPT (id), sold.* EXCEPT (product_id)
FROM (SELECT id, sku, name, category, price FROM {analytics}.products WHERE id IN {dirty}) AS products
LEFT JOIN (
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
  FROM (
    SELECT
      product_id,
      toInt64(was.orders) AS orders,
      toInt64(was.lines) AS lines,
      units,
      line_total,
      revenue,
      sold_units,
      returned_units,
      first_sold_at,
      last_sold_at
    FROM was
    WHERE product_id NOT IN doubtful
    UNION ALL
    SELECT
      product_id,
      _sign * toInt64(any(class) != 'cancelled'),
      _sign * toInt64(count()),
      _sign * sum(images.units),
      _sign * sum(images.line_total),
      _sign * sum(images.revenue),
      _sign * sum(images.sold_units),
      _sign * sum(images.returned_units),
      minOrNullIf(at, _sign = 1 AND class = 'sale'),
      maxOrNullIf(at, _sign = 1 AND class = 'sale')
    FROM images
    WHERE product_id NOT IN doubtful
    GROUP BY product_id, order_id, _sign
    UNION ALL
    SELECT
      product_id,
      toInt64(orders),
      toInt64(lines),
      units,
      line_total,
      revenue,
      sold_units,
      returned_units,
      first_sold_at,
      last_sold_at
    FROM {cdc}._product_orders_v1 FINAL
    WHERE product_id IN doubtful
  ) AS parts
  GROUP BY product_id
) AS sold ON sold.product_id = products.id;
