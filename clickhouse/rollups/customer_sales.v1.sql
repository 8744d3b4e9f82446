-- version: 1
-- what: what each customer ordered
-- bucket: customer_id
-- from: _customer_totals_v1(customer_id), customers(id)
-- requires: customers(id, name, country)
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._customer_sales_v1 {on_cluster} (
  customer_id Int64 COMMENT 'customers.id',
  name String COMMENT 'as it is now',
  country String COMMENT 'of the customer',
  orders UInt64,
  sales_orders UInt64,
  cancelled_orders UInt64,
  return_orders UInt64,
  lines UInt64,
  units Int64,
  line_total Decimal(38, 3),
  revenue Decimal(38, 3),
  first_order_at DateTime64(6, 'UTC') COMMENT 'first order of any status',
  last_order_at DateTime64(6, 'UTC') COMMENT 'last order of any status',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY customer_id SETTINGS index_granularity = 128
COMMENT 'Known customers with an order; measures as in sales_facts; read with FINAL';

SELECT totals.*, customers.name AS name, customers.country AS country
FROM (SELECT * FROM {cdc}._customer_totals_v1 FINAL WHERE customer_id IN {dirty}) AS totals
INNER JOIN (SELECT id, name, country FROM {analytics}.customers WHERE id IN {dirty}) AS customers ON customers.id = totals.customer_id;
