-- version: 1
-- what: sales by five minutes
-- bucket: slot
-- from: _order_moments_v1(slot)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._sales_slots_v1 {on_cluster} (
  slot DateTime64(0, 'UTC') COMMENT 'start of five minutes',
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
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY slot SETTINGS index_granularity = 512
COMMENT 'Sales by five minutes; measures as in sales_facts; read with FINAL';

SELECT
  slot,
  sum(moments.orders) AS orders,
  sum(moments.sales_orders) AS sales_orders,
  sum(moments.cancelled_orders) AS cancelled_orders,
  sum(moments.return_orders) AS return_orders,
  sum(moments.lines) AS lines,
  sum(moments.units) AS units,
  sum(moments.line_total) AS line_total,
  sum(moments.gross_sales) AS gross_sales,
  sum(moments.returns_total) AS returns_total,
  sum(moments.cancelled_total) AS cancelled_total,
  sum(moments.revenue) AS revenue,
  arraySort(groupUniqArrayIf(assumeNotNull(moments.customer_id), moments.sales_orders > 0 AND moments.customer_id IS NOT NULL)) AS customers
FROM {cdc}._order_moments_v1 AS moments FINAL
WHERE slot IN {dirty}
GROUP BY slot;
