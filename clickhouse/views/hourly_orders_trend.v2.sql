-- version: 2
-- what: the last 24 hours by the hour, without gaps
-- requires: _sales_slots_v1
-- changed: reads _sales_slots_v1, which is kept up to date, instead of every order
CREATE OR REPLACE VIEW {analytics}.hourly_orders_trend_v2 {on_cluster} (
  hour DateTime('{time_zone}') COMMENT 'hour in {time_zone}; the last one is still running',
  orders UInt64 COMMENT 'orders placed, of every status',
  sales_orders UInt64 COMMENT 'orders neither cancelled nor a return',
  cancelled_orders UInt64 COMMENT 'orders of status cancelled',
  return_orders UInt64 COMMENT 'orders of status return',
  lines UInt64 COMMENT 'order lines, of every status',
  revenue Decimal(38, 3) COMMENT 'gross_sales + returns_total; cancelled orders do not count',
  average_order_value Nullable(Decimal(38, 3)) COMMENT 'revenue / sales_orders, rounded half away from zero; NULL without sales orders',
  customers UInt64 COMMENT 'known customers with a sales order in this hour'
) SQL SECURITY DEFINER AS
WITH toStartOfHour(now('{time_zone}')) AS this_hour
SELECT
  hours.hour AS hour,
  ifNull(sales.orders, 0) AS orders,
  ifNull(sales.sales_orders, 0) AS sales_orders,
  ifNull(sales.cancelled_orders, 0) AS cancelled_orders,
  ifNull(sales.return_orders, 0) AS return_orders,
  ifNull(sales.lines, 0) AS lines,
  ifNull(sales.revenue, 0) AS revenue,
  round(toDecimal128(revenue, 6) / nullIf(sales_orders, 0), 3) AS average_order_value,
  ifNull(sales.customers, 0) AS customers
FROM (SELECT this_hour - toIntervalHour(arrayJoin(range(24))) AS hour) AS hours
LEFT JOIN (
  SELECT
    toStartOfHour(toTimeZone(slot, '{time_zone}')) AS hour,
    sum(slots.orders) AS orders,
    sum(slots.sales_orders) AS sales_orders,
    sum(slots.cancelled_orders) AS cancelled_orders,
    sum(slots.return_orders) AS return_orders,
    sum(slots.lines) AS lines,
    sum(slots.revenue) AS revenue,
    uniqExactArray(slots.customers) AS customers
  FROM {cdc}._sales_slots_v1 AS slots FINAL
  WHERE slot >= this_hour - INTERVAL 23 HOUR AND slot < this_hour + INTERVAL 1 HOUR
  GROUP BY hour
) AS sales ON sales.hour = hours.hour
ORDER BY hour
COMMENT 'The current hour in {time_zone} and the 23 before it; hours without orders are zeros';
