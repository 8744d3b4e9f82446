-- version: 2
-- what: the 20 products that sell the most units
-- requires: product_performance_v2
-- changed: reads product_performance_v2
CREATE OR REPLACE VIEW {analytics}.top_selling_products_v2 {on_cluster} (
  rank UInt64 COMMENT '1 is first',
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
SELECT row_number() OVER (ORDER BY units DESC, revenue DESC, product_id) AS rank, *
-- The first 20 are found before they are numbered: a window would sort every product with all of its columns.
FROM (SELECT * FROM {analytics}.product_performance_v2 ORDER BY units DESC, revenue DESC, product_id LIMIT 20)
ORDER BY rank
COMMENT 'The top 20 products by units, then revenue, then product_id';
