import {z} from 'zod';
import {textTable} from '../../cdc/observe/text-table.ts';
import {chName, rows} from '../../cdc/sink/clickhouse.ts';
import type {Demo} from './demo.ts';

/** The nine views, each with what its head shows: how many rows, in which order. */
const HEADS: readonly (readonly [view: string, rest: string])[] = [
  ['daily_sales_summary', 'ORDER BY day DESC LIMIT 5'],
  ['monthly_sales_summary', 'ORDER BY month DESC LIMIT 14'],
  ['hourly_orders_trend', 'ORDER BY hour DESC LIMIT 5'],
  ['customer_metrics', 'ORDER BY revenue DESC LIMIT 5'],
  ['top_customers_by_orders', 'ORDER BY rank LIMIT 5'],
  ['product_performance', 'ORDER BY revenue DESC LIMIT 5'],
  ['top_selling_products', 'ORDER BY rank LIMIT 5'],
  ['recent_activity', 'ORDER BY at DESC LIMIT 5'],
  ['data_freshness', 'ORDER BY table_name'],
];

const Row = z.record(z.string(), z.unknown());
const Totals = z.object({
  orders: z.string(),
  lines: z.string(),
  customers: z.string(),
  countries: z.string(),
  line_total: z.string(),
  revenue: z.string(),
});

/** Prints the totals and the head of each view. */
export async function printViews({client, settings}: Demo): Promise<void> {
  const view = (name: string): string => chName(settings.FRESHET_ANALYTICS_DATABASE, name);
  const [totals] = await rows(
    client,
    Totals,
    `SELECT toString(sum(orders)) AS orders, toString(sum(lines)) AS lines, toString(sum(line_total)) AS line_total,
       toString(sum(revenue)) AS revenue, toString((SELECT count() FROM ${view('customer_metrics')})) AS customers,
       toString((SELECT uniqExact(country) FROM ${view('orders')})) AS countries
     FROM ${view('monthly_sales_summary')}`,
  );
  if (totals) {
    const {orders, lines, customers, countries, line_total, revenue} = totals;
    console.log(
      `\n${grouped(orders)} orders · ${grouped(lines)} lines · ${grouped(customers)} known customers · ${countries} countries` +
        ` · line total ${grouped(line_total)} · revenue ${grouped(revenue)}`,
    );
  }
  for (const [name, rest] of HEADS) {
    const found = await rows(
      client,
      Row,
      `SELECT * FROM ${view(name)} ${rest} SETTINGS output_format_json_quote_decimals = 1`,
    );
    console.log(`\n${name}\n${found.length === 0 ? '(no rows)' : fitted(textTable(found.map(forPeople)))}`);
  }
}

/** On a terminal a line that is too long is cut: wrapped, a table cannot be read. */
const fitted = (table: string): string => {
  const {columns} = process.stdout;
  const cut = (line: string): string => (line.length > columns ? `${line.slice(0, columns - 1)}…` : line);
  return columns === undefined ? table : table.split('\n').map(cut).join('\n');
};

/** '9747747.934' → '9,747,747.934', digit by digit: no number is made of it. */
const grouped = (number: string): string => number.replace(/\B(?=(\d{3})+(?!\d)(?<!\.\d*))/g, ',');

const MONEY = /(_total|_sales|revenue|_value|price|^total)$/;

/** Money with thousands separators, times to the second. */
function forPeople(row: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(row).map(([name, value]) => {
      if (typeof value === 'number' && !Number.isInteger(value)) return [name, value.toFixed(3)];
      if (typeof value !== 'string') return [name, value];
      if (MONEY.test(name) && /^-?\d+(\.\d+)?$/.test(value)) return [name, grouped(value)];
      return [name, value.replace(/^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+$/, '$1')];
    }),
  );
}
