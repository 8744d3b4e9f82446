-- version: 1
-- what: how each product sells and comes back
-- requires: line_facts_v1, products(id, sku, name, category, price)
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.product_performance_v1 {on_cluster} (
  product_id Int64 COMMENT 'products.id',
  sku String COMMENT 'stock keeping unit',
  name Nullable(String) COMMENT 'as it is now',
  category Nullable(String) COMMENT 'as it is now',
  price Decimal(12, 3) COMMENT 'list price now; lines keep the price they were sold at',
  orders UInt64 COMMENT 'orders with it that are not cancelled',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  returned_units Int64 COMMENT 'units in return orders, as a positive number',
  return_rate Nullable(Float64) COMMENT 'returned units / units sold, 0.1 is 10 %; above 1 when earlier sales are not in the data; NULL when units sold are not above 0',
  first_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'first line in a sales order',
  last_sold_at Nullable(DateTime64(6, 'UTC')) COMMENT 'last line in a sales order'
) SQL SECURITY DEFINER AS
SELECT
  products.id AS product_id,
  products.sku AS sku,
  products.name AS name,
  products.category AS category,
  products.price AS price,
  ifNull(sold.orders, 0) AS orders,
  ifNull(sold.lines, 0) AS lines,
  ifNull(sold.units, 0) AS units,
  ifNull(sold.line_total, 0) AS line_total,
  ifNull(sold.revenue, 0) AS revenue,
  ifNull(sold.returned_units, 0) AS returned_units,
  if(sold.sold_units > 0, sold.returned_units / sold.sold_units, NULL) AS return_rate,
  sold.first_sold_at AS first_sold_at,
  sold.last_sold_at AS last_sold_at
FROM {analytics}.products AS products
LEFT JOIN (
  SELECT
    product_id,
    uniqExactIf(order_id, class != 'cancelled') AS orders,
    count() AS lines,
    sum(facts.units) AS units,
    sum(facts.line_total) AS line_total,
    sum(facts.revenue) AS revenue,
    sum(facts.sold_units) AS sold_units,
    sum(facts.returned_units) AS returned_units,
    minOrNullIf(at, class = 'sale') AS first_sold_at,
    maxOrNullIf(at, class = 'sale') AS last_sold_at
  FROM {analytics}.line_facts_v1 AS facts
  GROUP BY product_id
) AS sold ON sold.product_id = products.id
ORDER BY product_id
COMMENT 'One row a product, also those never sold';
