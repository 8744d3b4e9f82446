-- version: 1
-- what: the 50 customers with the most sales orders
-- requires: customer_metrics_v1
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.top_customers_by_orders_v1 {on_cluster} (
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
SELECT row_number() OVER (ORDER BY sales_orders DESC, revenue DESC, customer_id) AS rank, *
FROM {analytics}.customer_metrics_v1
ORDER BY rank
LIMIT 50
COMMENT 'The top 50 customers by sales_orders, then revenue, then customer_id';
