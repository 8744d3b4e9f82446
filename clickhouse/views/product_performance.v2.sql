-- version: 2
-- what: how each product sells and comes back
-- requires: _product_sales_v1
-- changed: reads _product_sales_v1, which is kept up to date, instead of every line, and has the products' names
CREATE OR REPLACE VIEW {analytics}.product_performance_v2 {on_cluster} (
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
  sold.product_id AS product_id,
  sold.sku AS sku,
  sold.name AS name,
  sold.category AS category,
  sold.price AS price,
  sold.orders AS orders,
  sold.lines AS lines,
  sold.units AS units,
  sold.line_total AS line_total,
  sold.revenue AS revenue,
  sold.returned_units AS returned_units,
  if(sold.sold_units > 0, sold.returned_units / sold.sold_units, NULL) AS return_rate,
  sold.first_sold_at AS first_sold_at,
  sold.last_sold_at AS last_sold_at
FROM {cdc}._product_sales_v1 AS sold FINAL
ORDER BY product_id
COMMENT 'One row a product, also those never sold';
