-- version: 1
-- what: sales by day
-- bucket: day
-- from: _sales_slots_v1(toDate32(slot, '{time_zone}')), _customer_starts_v1(day)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._sales_days_v1 {on_cluster} (
  day Date32 COMMENT 'in {time_zone}',
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
  customers Array(Int64) COMMENT 'known customers with a sales order',
  customer_count UInt64 COMMENT 'how many these are',
  first_time_customers UInt64 COMMENT 'known customers whose first sales order ever is on this day',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY day SETTINGS index_granularity = 64
COMMENT 'Sales by day in {time_zone}; measures as in sales_facts; read with FINAL';

SELECT
  sales.*,
  ifNull(starts.customers, 0) AS first_time_customers
FROM (
  SELECT
    toDate32(slot, '{time_zone}') AS day,
    sum(slots.orders) AS orders,
    sum(slots.sales_orders) AS sales_orders,
    sum(slots.cancelled_orders) AS cancelled_orders,
    sum(slots.return_orders) AS return_orders,
    sum(slots.lines) AS lines,
    sum(slots.units) AS units,
    sum(slots.line_total) AS line_total,
    sum(slots.gross_sales) AS gross_sales,
    sum(slots.returns_total) AS returns_total,
    sum(slots.cancelled_total) AS cancelled_total,
    sum(slots.revenue) AS revenue,
    arraySort(groupUniqArrayArray(slots.customers)) AS customers,
    length(customers) AS customer_count
  FROM {cdc}._sales_slots_v1 AS slots FINAL
  WHERE toDate32(slot, '{time_zone}') IN {dirty}
  GROUP BY day
) AS sales
LEFT JOIN (
  SELECT day, count() AS customers FROM {cdc}._customer_starts_v1 FINAL WHERE day IN {dirty} GROUP BY day
) AS starts ON starts.day = sales.day;
