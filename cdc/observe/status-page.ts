import {z} from 'zod';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {readSchemaReport} from './schema-report.ts';
import {freshnessLine, readFreshness} from './status.ts';

/** What the page shows of the views, where they are there: title, view, the rest of the query. */
const SECTIONS: readonly {
  readonly title: string;
  readonly view: string;
  readonly sql: (view: string) => string;
}[] = [
  {
    title: 'Sales by day',
    view: 'daily_sales_summary',
    sql: view =>
      `SELECT day, orders, toDecimalString(revenue, 2) AS revenue, toDecimalString(returns_total, 2) AS returns, toDecimalString(average_order_value, 2) AS average, customers, first_time_customers AS new FROM ${view} ORDER BY day DESC LIMIT 8`,
  },
  {
    title: 'Best-selling products',
    view: 'top_selling_products',
    sql: view =>
      `SELECT rank, sku, name, units, toDecimalString(revenue, 2) AS revenue FROM ${view} ORDER BY rank LIMIT 8`,
  },
  {
    title: 'Customers with the most orders',
    view: 'top_customers_by_orders',
    sql: view =>
      `SELECT rank, name, country, sales_orders AS orders, toDecimalString(revenue, 2) AS revenue FROM ${view} ORDER BY rank LIMIT 8`,
  },
  {
    title: 'Last orders',
    view: 'recent_activity',
    sql: view =>
      `SELECT formatDateTime(at, '%H:%i:%S') AS time, order_no, customer_name AS customer, country, status, toDecimalString(total, 2) AS total FROM ${view} ORDER BY at DESC LIMIT 12`,
  },
];

const Row = z.record(z.string(), z.unknown());

/** The pipeline and its numbers as one page that reloads itself; no script, nothing from elsewhere. */
export async function statusPage(client: ClickHouseClient, settings: Settings): Promise<string> {
  const [freshness, {notes, changes, attention}] = await Promise.all([
    readFreshness(client, settings),
    readSchemaReport(client, settings),
  ]);
  const sections = await Promise.all(
    SECTIONS.map(async ({title, view, sql}) => {
      const found = await rows(client, Row, sql(chName(settings.FRESHET_ANALYTICS_DATABASE, view))).catch(
        () => [],
      );
      return found.length === 0 ? '' : `<section><h2>${title}</h2>${table(found)}</section>`;
    }),
  );
  // One table of which nothing is known is enough: the page as a whole is not complete then.
  const complete = freshness.map(({complete_up_to: to}) => to ?? '').sort()[0];
  const isToday = complete?.startsWith(new Date().toISOString().slice(0, 10));
  const headline = complete
    ? `complete up to ${complete.slice(isToday ? 11 : 0, 19)} UTC`
    : 'not complete yet';
  return PAGE.replace('{headline}', headline)
    .replace('{freshness}', () =>
      freshness.length > 0 ? table(freshness.map(row => freshnessLine(row, notes))) : '<p>No tables yet.</p>',
    )
    .replace('{attention}', () =>
      attention.map(({what, todo}) => `<p class="late">${escaped(what)}<br>${escaped(todo)}</p>`).join('\n'),
    )
    .replace('{changes}', () => (changes.length > 0 ? `<h2>Schema changes</h2>${table(changes)}` : ''))
    .replace('{sections}', () => sections.join('\n'));
}

const escaped = (value: unknown): string =>
  String(value ?? '').replace(/[&<>"]/g, letter => `&#${letter.charCodeAt(0)};`);

function table(found: readonly Record<string, unknown>[]): string {
  const names = Object.keys(found[0] ?? {});
  const isNumber = (name: string): boolean =>
    found.every(row => /^-?[\d.,]*( s)?$/.test(String(row[name] ?? '')));
  const cell = (tag: string, name: string, value: unknown): string =>
    `<${tag} class="${isNumber(name) ? 'n' : ''}${name === 'state' ? ` ${escaped(value)}` : ''}">${escaped(value)}</${tag}>`;
  const head = names.map(name => cell('th', name, name.replaceAll('_', ' '))).join('');
  const body = found
    .map(row => `<tr>${names.map(name => cell('td', name, row[name])).join('')}</tr>`)
    .join('');
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
}

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Freshet</title>
<style>
:root { color-scheme: light dark; --line: #8883; --soft: #777; }
body { font: 14px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 84rem; padding: 1.5rem; }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
header strong { font-variant-numeric: tabular-nums; } nav { margin-left: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; overflow: hidden; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 500; color: var(--soft); } .n { text-align: right; font-variant-numeric: tabular-nums; }
td.ok, td.idle { color: #1a8a4a; } td.late, td.parked, p.late { color: #d1242f; font-weight: 600; } td.unknown { color: #b76e00; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(34rem, 100%), 1fr)); column-gap: 2.5rem; }
</style></head><body>
<header><h1>Freshet</h1><strong>{headline}</strong><nav><a href="/health">health</a> · <a href="/metrics">metrics</a></nav></header>
{attention}
<h2>Tables</h2>{freshness}
{changes}
<main>{sections}</main>
</body></html>
`;
