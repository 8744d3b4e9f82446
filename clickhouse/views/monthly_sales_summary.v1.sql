-- version: 1
-- what: sales by month
-- requires: sales_facts_v1, first_sales_v1
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.monthly_sales_summary_v1 {on_cluster} (
  month Date32 COMMENT 'first day of the month in {time_zone}',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  units Int64 COMMENT 'quantity over lines of orders that are not cancelled; returns count negative',
  line_total Decimal(38, 3) COMMENT 'quantity x unit_price over all lines; returns count negative',
  gross_sales Decimal(38, 3) COMMENT 'line_total of sales orders',
  returns_total Decimal(38, 3) COMMENT 'line_total of return orders, normally negative',
  cancelled_total Decimal(38, 3) COMMENT 'line_total of cancelled orders',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  customers UInt64 COMMENT 'known customers with a sales order in this period',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is in this period',
  returning_customers UInt64 COMMENT 'customers - first_time_customers'
) SQL SECURITY DEFINER AS
SELECT
  sales.month AS month,
  sales.orders AS orders,
  sales.sales_orders AS sales_orders,
  sales.cancelled_orders AS cancelled_orders,
  sales.return_orders AS return_orders,
  sales.lines AS lines,
  sales.units AS units,
  sales.line_total AS line_total,
  sales.gross_sales AS gross_sales,
  sales.returns_total AS returns_total,
  sales.cancelled_total AS cancelled_total,
  sales.revenue AS revenue,
  round(toDecimal128(revenue, 6) / nullIf(sales_orders, 0), 3) AS average_order_value,
  sales.customers AS customers,
  ifNull(first.customers, 0) AS first_time_customers,
  customers - first_time_customers AS returning_customers
FROM (
  SELECT
    makeDate32(toYear(at, '{time_zone}'), toMonth(at, '{time_zone}'), 1) AS month,
    sum(facts.orders) AS orders,
    sum(facts.sales_orders) AS sales_orders,
    sum(facts.cancelled_orders) AS cancelled_orders,
    sum(facts.return_orders) AS return_orders,
    sum(facts.lines) AS lines,
    sum(facts.units) AS units,
    sum(facts.line_total) AS line_total,
    sum(facts.gross_sales) AS gross_sales,
    sum(facts.returns_total) AS returns_total,
    sum(facts.cancelled_total) AS cancelled_total,
    sum(facts.revenue) AS revenue,
    uniqExactIf(facts.customer_id, facts.sales_orders = 1) AS customers
  FROM {analytics}.sales_facts_v1 AS facts
  GROUP BY month
) AS sales
LEFT JOIN (
  SELECT makeDate32(toYear(at, '{time_zone}'), toMonth(at, '{time_zone}'), 1) AS month, count() AS customers FROM {analytics}.first_sales_v1 GROUP BY month
) AS first ON first.month = sales.month
ORDER BY month
COMMENT 'Sales by month in {time_zone}: one row a month with an order or a line';
