-- version: 2
-- what: sales by month
-- requires: _sales_months_v1
-- changed: reads _sales_months_v1, which is kept up to date, instead of every order
CREATE OR REPLACE VIEW {analytics}.monthly_sales_summary_v2 {on_cluster} (
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
  month,
  orders,
  sales_orders,
  cancelled_orders,
  return_orders,
  lines,
  units,
  line_total,
  gross_sales,
  returns_total,
  cancelled_total,
  revenue,
  round(toDecimal128(revenue, 6) / nullIf(sales_orders, 0), 3) AS average_order_value,
  customers,
  first_time_customers,
  customers - first_time_customers AS returning_customers
FROM {cdc}._sales_months_v1 AS sales FINAL
ORDER BY month
COMMENT 'Sales by month in {time_zone}: one row a month with an order or a line';
