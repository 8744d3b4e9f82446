-- version: 1
-- what: the day on which each customer bought for the first time
-- bucket: customer_id
-- from: _customer_totals_v1(customer_id)
-- compared: yes
-- changed: first version
CREATE TABLE IF NOT EXISTS {cdc}._customer_starts_v1 {on_cluster} (
  day Date32 COMMENT 'in {time_zone}',
  customer_id Int64 COMMENT 'customers.id',
  at DateTime64(6, 'UTC') COMMENT 'when the first sales order was placed',
  {run}
) ENGINE = ReplacingMergeTree(_run, _is_deleted) ORDER BY (day, customer_id) SETTINGS index_granularity = 512
COMMENT 'One row a customer with at least one sales order; read with FINAL';

SELECT toDate32(first_sale_at, '{time_zone}') AS day, customer_id, first_sale_at AS at
FROM {cdc}._customer_totals_v1 FINAL
WHERE customer_id IN {dirty} AND first_sale_at IS NOT NULL;
