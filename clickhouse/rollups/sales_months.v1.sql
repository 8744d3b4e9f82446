-- version: 1
-- what: sales by month
-- bucket: month
-- from: _sales_days_v1(makeDate32(toYear(day), toMonth(day), 1))
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._sales_months_v1 {on_cluster} (
  month Date32 COMMENT 'its first day, in {time_zone}',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  gross_sales Decimal(38, 3),
  returns_total Decimal(38, 3),
  cancelled_total Decimal(38, 3),
  revenue Decimal(38, 3),
  customers UInt64 COMMENT 'known customers with a sales order',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is in this month',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY month SETTINGS index_granularity = 64
COMMENT 'Sales by month in {time_zone}; measures as in sales_facts; read with FINAL';

SELECT
  makeDate32(toYear(day), toMonth(day), 1) AS month,
  sum(days.orders) AS orders,
  sum(days.sales_orders) AS sales_orders,
  sum(days.cancelled_orders) AS cancelled_orders,
  sum(days.return_orders) AS return_orders,
  sum(days.lines) AS lines,
  sum(days.units) AS units,
  sum(days.line_total) AS line_total,
  sum(days.gross_sales) AS gross_sales,
  sum(days.returns_total) AS returns_total,
  sum(days.cancelled_total) AS cancelled_total,
  sum(days.revenue) AS revenue,
  uniqExactArray(days.customers) AS customers,
  sum(days.first_time_customers) AS first_time_customers
FROM {cdc}._sales_days_v1 AS days FINAL
WHERE makeDate32(toYear(day), toMonth(day), 1) IN {dirty}
GROUP BY month;
