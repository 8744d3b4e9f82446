import {PercentChangeColorMode} from '@grafana/grafana-foundation-sdk/common';
import * as units from '@grafana/grafana-foundation-sdk/units';
import {
  CLOCK,
  COUNT,
  coloured,
  comparedNumber,
  fixed,
  lines,
  MONEY,
  ranking,
  rows,
  stackedBars,
} from '../looks.ts';
import {DAYS_IN_RANGE, series, sql, ZONE} from '../target.ts';

const AGAINST = 'The change is against as many days just before; today counts as it stands.';

/**
 * Two rows: the measure in the days before the chosen range, as many as it has, and in the range. No view can hold
 * this, because only the panel knows the range. Days without an order have no row in the view, and both rows come
 * nevertheless: the last one would be the days before otherwise.
 */
const compared = (measure: string, name: string) =>
  sql(`WITH toDate32($__fromTime, ${ZONE}) AS first_day, toDate32($__toTime, ${ZONE}) AS last_day
SELECT day >= first_day AS in_range, ${measure} AS ${name}
FROM ecommerce_analytics.daily_sales_summary_v2
WHERE day BETWEEN first_day - (dateDiff('day', first_day, last_day) + 1) AND last_day
GROUP BY in_range ORDER BY in_range WITH FILL FROM 0 TO 2`);

export const revenue = () =>
  comparedNumber(
    {
      title: 'Revenue',
      unit: MONEY,
      why: `Lines of orders that were not cancelled, less returns, on the day of the line. ${AGAINST} A fall with as many orders as before is a fall of the order value: look to the right.`,
    },
    'revenue',
  ).withTarget(compared('sum(revenue)', 'revenue'));

export const orders = () =>
  comparedNumber(
    {
      title: 'Orders',
      unit: COUNT,
      why: `Sales orders: neither cancelled nor returns. ${AGAINST} At zero during shop hours, check "Complete up to" first, then the shop.`,
    },
    'sales_orders',
  ).withTarget(compared('sum(sales_orders)', 'sales_orders'));

export const orderValue = () =>
  comparedNumber(
    {
      title: 'Average order value',
      unit: MONEY,
      why: `Revenue over sales orders, of the whole range (not a mean of daily means). ${AGAINST}`,
    },
    'average_order_value',
  )
    .decimals(2)
    .withTarget(compared('sum(revenue) / nullIf(sum(sales_orders), 0)', 'average_order_value'));

export const returns = () =>
  comparedNumber(
    {
      title: 'Returns',
      unit: MONEY,
      why: `What returned goods took off the revenue, on the day of the return. ${AGAINST} Red means more returned: see "Most returned products".`,
    },
    'returns_total',
  )
    .percentChangeColorMode(PercentChangeColorMode.Inverted)
    .withTarget(compared('sum(returns_total)', 'returns_total'));

export const cancellations = () =>
  comparedNumber(
    {
      title: 'Cancelled orders',
      unit: COUNT,
      why: `Orders that were cancelled, on the day they were placed; they are in no revenue. ${AGAINST} A jump is worth a look at payment and stock.`,
    },
    'cancelled_orders',
  )
    .percentChangeColorMode(PercentChangeColorMode.Inverted)
    .withTarget(compared('sum(cancelled_orders)', 'cancelled_orders'));

export const newCustomers = () =>
  comparedNumber(
    {
      title: 'New customers',
      unit: COUNT,
      why: `Customers whose first sales order ever is in the range. ${AGAINST} Customer insights shows who they are.`,
    },
    'first_time_customers',
  ).withTarget(compared('sum(first_time_customers)', 'first_time_customers'));

export const dailyRevenue = () =>
  lines({
    title: 'Revenue by day',
    unit: MONEY,
    why: 'Sales before and after returns, by day. The last point is today so far. A gap between the lines is what came back.',
  })
    .overrideByName('gross_sales', [fixed('light-blue')])
    .overrideByName('revenue', [fixed('green')])
    .withTarget(
      series(`SELECT toDateTime(day, ${ZONE}) AS time, revenue, gross_sales
FROM ecommerce_analytics.daily_sales_summary_v2
WHERE ${DAYS_IN_RANGE}
ORDER BY time`),
    );

export const dailyOrders = () =>
  stackedBars({
    title: 'Orders by day',
    unit: COUNT,
    why: 'Orders by the day they were placed on: sold, cancelled and returned. The last bar is today so far.',
  })
    .overrideByName('sales_orders', [fixed('green')])
    .overrideByName('cancelled_orders', [fixed('orange')])
    .overrideByName('return_orders', [fixed('red')])
    .withTarget(
      series(`SELECT toDateTime(day, ${ZONE}) AS time, sales_orders, cancelled_orders, return_orders
FROM ecommerce_analytics.daily_sales_summary_v2
WHERE ${DAYS_IN_RANGE}
ORDER BY time`),
    );

export const hourlyOrders = () =>
  stackedBars({
    title: 'Orders by hour, last 24 hours',
    unit: COUNT,
    why: 'Whatever range is chosen above, the last 24 hours, with the current hour so far. Empty hours are real zeros as long as "Complete up to" is later.',
  })
    .timeFrom('24h')
    .overrideByName('sales_orders', [fixed('green')])
    .overrideByName('cancelled_orders', [fixed('orange')])
    .overrideByName('return_orders', [fixed('red')])
    .withTarget(
      series(`SELECT hour AS time, sales_orders, cancelled_orders, return_orders
FROM ecommerce_analytics.hourly_orders_trend_v2
ORDER BY time`),
    );

export const hourlyRevenue = () =>
  lines({
    title: 'Revenue by hour, last 24 hours',
    unit: MONEY,
    why: 'Whatever range is chosen above, the last 24 hours, with the current hour so far. An hour below zero had more returns than sales.',
  })
    .timeFrom('24h')
    .withTarget(
      series(`SELECT hour AS time, revenue
FROM ecommerce_analytics.hourly_orders_trend_v2
ORDER BY time`),
    );

export const monthlySales = () =>
  rows(
    {
      title: 'Sales by month',
      unit: COUNT,
      why: 'The last 24 months that had orders, whatever range is chosen above; the first row is this month so far. Customers are distinct within the month, so months do not add up to a year.',
    },
    {
      month: units.NoUnit,
      revenue: MONEY,
      sales_orders: COUNT,
      average_order_value: MONEY,
      customers: COUNT,
      first_time_customers: COUNT,
      returns_total: MONEY,
      cancelled_orders: COUNT,
    },
  ).withTarget(
    sql(`SELECT formatDateTime(month, '%Y-%m') AS month, revenue, sales_orders, average_order_value, customers, first_time_customers,
  returns_total, cancelled_orders
FROM ecommerce_analytics.monthly_sales_summary_v2
ORDER BY month DESC
LIMIT 24`),
  );

export const revenueByCountry = () =>
  ranking(
    {
      title: 'Revenue by country',
      unit: MONEY,
      why: "The ten best countries by the customers' home country, of all time: only orders with a known customer are in it.",
    },
    'revenue',
  ).withTarget(
    sql(`SELECT country, sum(revenue) AS revenue
FROM ecommerce_analytics.customer_metrics_v2
GROUP BY country ORDER BY revenue DESC, country
LIMIT 10`),
  );

/** What an order's status looks like wherever it is shown. */
const STATUS_COLOURS = {
  pending: 'yellow',
  paid: 'light-green',
  shipped: 'green',
  delivered: 'dark-green',
  cancelled: 'orange',
  refunded: 'light-red',
  return: 'red',
};

export const recentOrders = () =>
  rows(
    {
      title: 'Latest orders',
      unit: units.NoUnit,
      why: 'The newest 50 orders of the last 24 hours, with the status they have now. If the newest is old, look at "Complete up to" before you blame the shop.',
    },
    {
      at: CLOCK,
      order_no: units.NoUnit,
      customer_name: units.NoUnit,
      country: units.NoUnit,
      status: units.NoUnit,
      lines: COUNT,
      total: MONEY,
    },
    {status: coloured(STATUS_COLOURS)},
  ).withTarget(
    sql(`SELECT at, order_no, customer_name, country, status, lines, total
FROM ecommerce_analytics.recent_activity_v2
ORDER BY at DESC, order_id DESC
LIMIT 50`),
  );
