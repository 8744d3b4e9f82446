-- version: 1
-- what: what each customer ordered
-- requires: sales_facts_v1, customers(id, name, country)
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.customer_metrics_v1 {on_cluster} (
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
  bought.customer_id AS customer_id,
  customers.name AS name,
  customers.country AS country,
  bought.orders AS orders,
  bought.sales_orders AS sales_orders,
  bought.cancelled_orders AS cancelled_orders,
  bought.return_orders AS return_orders,
  bought.lines AS lines,
  bought.units AS units,
  bought.line_total AS line_total,
  bought.revenue AS revenue,
  round(toDecimal128(revenue, 6) / nullIf(sales_orders, 0), 3) AS average_order_value,
  bought.first_order_at AS first_order_at,
  bought.last_order_at AS last_order_at,
  dateDiff('day', last_order_at, now(), '{time_zone}') AS days_since_last_order,
  toBool(sales_orders > 1) AS is_returning
FROM (
  SELECT
    assumeNotNull(facts.customer_id) AS customer_id,
    sum(facts.orders) AS orders,
    sum(facts.sales_orders) AS sales_orders,
    sum(facts.cancelled_orders) AS cancelled_orders,
    sum(facts.return_orders) AS return_orders,
    sum(facts.lines) AS lines,
    sum(facts.units) AS units,
    sum(facts.line_total) AS line_total,
    sum(facts.revenue) AS revenue,
    -- By numbers: see RIGHT_AGGREGATES, which not every reader has.
    fromUnixTimestamp64Micro(minIf(toUnixTimestamp64Micro(at), facts.orders = 1), 'UTC') AS first_order_at,
    fromUnixTimestamp64Micro(maxIf(toUnixTimestamp64Micro(at), facts.orders = 1), 'UTC') AS last_order_at
  FROM {analytics}.sales_facts_v1 AS facts
  WHERE facts.customer_id IS NOT NULL
  GROUP BY customer_id
) AS bought
INNER JOIN {analytics}.customers AS customers ON customers.id = bought.customer_id
ORDER BY customer_id
COMMENT 'One row a customer with at least one order of any status';
