-- version: 1
-- what: orders that no other view counts, because they are in another currency
-- requires: _foreign_orders_v1
-- changed: first version
CREATE OR REPLACE VIEW {analytics}.other_currencies_v1 {on_cluster} (
  currency LowCardinality(String) COMMENT 'orders.currency, empty where that is NULL; that of the business is {currency}',
  orders UInt64 COMMENT 'in it, of every status',
  newest_at DateTime64(6, 'UTC') COMMENT 'when the newest of them was placed'
) SQL SECURITY DEFINER AS
SELECT
  currency,
  count() AS orders,
  -- By numbers: see RIGHT_AGGREGATES, which not every reader has.
  fromUnixTimestamp64Micro(max(toUnixTimestamp64Micro(at)), 'UTC') AS newest_at
FROM {cdc}._foreign_orders_v1 FINAL
GROUP BY currency
ORDER BY orders DESC, currency
COMMENT 'One row a currency other than {currency}; empty where all amounts have a sum';
