-- version: 2
-- what: the 50 customers with the most sales orders
-- requires: _top_customers_v1
-- changed: reads _top_customers_v1, which is kept up to date, instead of ranking everybody
CREATE OR REPLACE VIEW {analytics}.top_customers_by_orders_v2 {on_cluster} (
  rank UInt64 COMMENT '1 is first',
  customer_id Int64 COMMENT 'customers.id',
  name String COMMENT 'as it is now',
  country String COMMENT 'of the customer',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  days_since_last_order Int64 COMMENT 'calendar days in {time_zone} from last_order_at to today',
  is_returning Bool COMMENT 'more than one sales order'
) SQL SECURITY DEFINER AS
SELECT
  ranked.rank AS rank,
  ranked.customer_id AS customer_id,
  ranked.name AS name,
  ranked.country AS country,
  ranked.orders AS orders,
  ranked.sales_orders AS sales_orders,
  ranked.cancelled_orders AS cancelled_orders,
  ranked.return_orders AS return_orders,
  ranked.lines AS lines,
  ranked.units AS units,
  ranked.line_total AS line_total,
  ranked.revenue AS revenue,
  round(toDecimal128(revenue, 6) / nullIf(sales_orders, 0), 3) AS average_order_value,
  ranked.first_order_at AS first_order_at,
  ranked.last_order_at AS last_order_at,
  dateDiff('day', last_order_at, now(), '{time_zone}') AS days_since_last_order,
  toBool(sales_orders > 1) AS is_returning
FROM {cdc}._top_customers_v1 AS ranked FINAL
ORDER BY rank
COMMENT 'The top 50 customers by sales_orders, then revenue, then customer_id';
