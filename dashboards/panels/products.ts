import * as units from '@grafana/grafana-foundation-sdk/units';
import {COUNT, MONEY, ranking, rows, SHARE} from '../looks.ts';
import {sql} from '../target.ts';

const COLUMNS = {sku: units.NoUnit, name: units.NoUnit, units: COUNT, revenue: MONEY, return_rate: SHARE};

export const topProducts = () =>
  rows(
    {
      title: 'Top products',
      unit: units.NoUnit,
      why: 'The 20 products that sold most units, of all time, returns taken off. A high return rate up here costs most.',
    },
    {rank: COUNT, ...COLUMNS, orders: COUNT},
  ).withTarget(
    sql(`SELECT rank, sku, name, units, revenue, return_rate, orders
FROM ecommerce_analytics.top_selling_products_v2
ORDER BY rank`),
  );

export const mostReturned = () =>
  rows(
    {
      title: 'Most returned products',
      unit: units.NoUnit,
      why: 'The 20 products with most units returned, of all time. The rate is returned over sold units: check description and quality of those above a tenth.',
    },
    {...COLUMNS, returned_units: COUNT},
  ).withTarget(
    sql(`SELECT sku, name, returned_units, return_rate, units, revenue
FROM ecommerce_analytics.product_performance_v2
WHERE returned_units > 0
ORDER BY returned_units DESC, product_id
LIMIT 20`),
  );

export const revenueByCategory = () =>
  ranking(
    {
      title: 'Revenue by category',
      unit: MONEY,
      why: 'The ten best categories of all time, returns taken off. Products without a category are one bar without a name.',
    },
    'revenue',
  ).withTarget(
    sql(`SELECT category, sum(revenue) AS revenue
FROM ecommerce_analytics.product_performance_v2
GROUP BY category ORDER BY revenue DESC, category
LIMIT 10`),
  );
