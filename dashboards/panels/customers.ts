import * as units from '@grafana/grafana-foundation-sdk/units';
import {COUNT, distribution, fixed, MONEY, number, ranking, rows, SHARE, stackedBars} from '../looks.ts';
import {DAYS_IN_RANGE, series, sql, ZONE} from '../target.ts';

/** The variables of this dashboard; their queries run when the time range changes. */
export const COUNTRIES = `SELECT DISTINCT country FROM ecommerce_analytics.customer_metrics_v2
ORDER BY country`;
const IN_COUNTRY = '$__conditionalAll(country IN (${country:singlequote}), $country)';
const NAMED = '$__conditionalAll(positionCaseInsensitive(name, ${search:singlequote}) > 0, $search)';
const CHOSEN = `FROM ecommerce_analytics.customer_metrics_v2
WHERE ${IN_COUNTRY}`;

export const customers = () =>
  number(
    {
      title: 'Customers',
      unit: COUNT,
      why: 'Customers with at least one order, of all time, in the chosen countries.',
    },
    'customers',
  ).withTarget(sql(`SELECT count() AS customers\n${CHOSEN}`));

export const returningShare = () =>
  number(
    {
      title: 'Returning',
      unit: SHARE,
      why: 'Share of those customers with more than one sales order. Falling while customers grow means that new ones do not come back.',
    },
    'returning_share',
  ).withTarget(sql(`SELECT sum(is_returning) / nullIf(count(), 0) AS returning_share\n${CHOSEN}`));

export const customerValue = () =>
  number(
    {
      title: 'Revenue per customer',
      unit: MONEY,
      why: 'Revenue of all time over customers, in the chosen countries.',
    },
    'revenue_per_customer',
  )
    .decimals(2)
    .withTarget(sql(`SELECT sum(revenue) / nullIf(count(), 0) AS revenue_per_customer\n${CHOSEN}`));

export const newAndReturning = () =>
  stackedBars({
    title: 'New and returning customers by day',
    unit: COUNT,
    why: 'Distinct customers with a sales order on that day, all countries. New: the first sales order ever. Days do not add up to a month, because a customer can buy on several.',
  })
    .overrideByName('first_time_customers', [fixed('light-blue')])
    .overrideByName('returning_customers', [fixed('blue')])
    .withTarget(
      series(`SELECT toDateTime(day, ${ZONE}) AS time, first_time_customers, returning_customers
FROM ecommerce_analytics.daily_sales_summary_v2
WHERE ${DAYS_IN_RANGE}
ORDER BY time`),
    );

export const recency = () =>
  distribution(
    {
      title: 'Time since the last order',
      unit: COUNT,
      why: 'Customers by months of 30 days since their last order: 0 is within the last 30 days. A bulge that moves right is a group that is being lost; write to it before it is gone.',
    },
    'months',
  ).withTarget(
    sql(`SELECT toString(intDiv(days_since_last_order, 30)) AS months, count() AS customers
${CHOSEN}
GROUP BY months ORDER BY toInt64(months)
LIMIT 25`),
  );

export const orderCounts = () =>
  distribution(
    {
      title: 'Sales orders per customer',
      unit: COUNT,
      why: 'Customers by how many sales orders they placed, the first 25 counts. The step from 1 to 2 is what a second-order offer should flatten.',
    },
    'sales_orders_placed',
  ).withTarget(
    sql(`SELECT toString(sales_orders) AS sales_orders_placed, count() AS customers
${CHOSEN}
GROUP BY sales_orders_placed ORDER BY toUInt64(sales_orders_placed)
LIMIT 25`),
  );

export const customersByCountry = () =>
  ranking(
    {
      title: 'Customers by country',
      unit: COUNT,
      why: 'The ten countries with most customers among the chosen ones, of all time.',
    },
    'customers',
  ).withTarget(
    sql(`SELECT country, count() AS customers
${CHOSEN}
GROUP BY country ORDER BY customers DESC, country
LIMIT 10`),
  );

export const topCustomers = () =>
  rows(
    {
      title: 'Top customers',
      unit: units.NoUnit,
      why: 'Of the 50 customers with most sales orders of all time, those in the chosen countries; the rank is among all. Many days since the last order up here deserves a call.',
    },
    {
      rank: COUNT,
      name: units.NoUnit,
      country: units.NoUnit,
      sales_orders: COUNT,
      revenue: MONEY,
      average_order_value: MONEY,
      days_since_last_order: units.Days,
    },
  ).withTarget(
    sql(`SELECT rank, name, country, sales_orders, revenue, average_order_value, days_since_last_order
FROM ecommerce_analytics.top_customers_by_orders_v2
WHERE ${IN_COUNTRY}
ORDER BY rank`),
  );

export const customerTable = () =>
  rows(
    {
      title: 'Customer list',
      unit: units.NoUnit,
      why: 'The 500 best customers by revenue of all time whose name holds the text searched for, in the chosen countries. Return and cancelled orders are counted apart from sales.',
    },
    {
      customer_id: units.NoUnit,
      name: units.NoUnit,
      country: units.NoUnit,
      sales_orders: COUNT,
      return_orders: COUNT,
      cancelled_orders: COUNT,
      revenue: MONEY,
      average_order_value: MONEY,
      first_order_at: units.DatetimeISO,
      last_order_at: units.DatetimeISO,
      days_since_last_order: units.Days,
    },
  ).withTarget(
    sql(`SELECT customer_id, name, country, sales_orders, return_orders, cancelled_orders, revenue,
  average_order_value, first_order_at, last_order_at, days_since_last_order
${CHOSEN}
  AND ${NAMED}
ORDER BY revenue DESC, customer_id
LIMIT 500`),
  );
