import {stat} from 'node:fs/promises';
import {basename} from 'node:path';
import type {Client} from 'pg';
import {type Cell, copyRows} from './copy.ts';
import {type BadLine, type InvoiceLine, invoiceLines} from './dataset-lines.ts';
import {CURRENCY, formatMills} from './money.ts';
import {connected, type Progress, runLoad} from './schema.ts';

/** What the shop sums up to; money as text with 3 decimals. */
export type Totals = {orders: number; lines: number; customers: number; countries: number; lineTotal: string};
export type DatasetOptions = {
  progress?: Progress;
  /** Hears of every line that could not be read (and is not loaded); the result holds the first 20 of them. */
  onBadLine?: (bad: BadLine) => void;
};

/** Orders written at a time, with their lines, as one transaction: about 40,000 lines. */
const ORDERS_A_PART = 2_000;
const BAD_LINES_KEPT = 20;

/**
 * Replaces the shop's contents by the invoices of an *Online Retail* CSV file, plain or gzipped. Read as a stream;
 * what needs the whole of it (an invoice's first line, a product's last name) is worked out by PostgreSQL in a
 * temporary table, so memory doesn't grow with the file. What PostgreSQL then holds is compared with what was read.
 * Fails when the header is another, or the sums differ.
 */
export async function loadDataset(
  pgUrl: string,
  file: string,
  {progress = () => {}, onBadLine = () => {}}: DatasetOptions = {},
): Promise<Totals & {bad: {count: number; first: BadLine[]}}> {
  const {size} = await stat(file);
  const bad = {count: 0, first: [] as BadLine[]};
  const onBad = (line: BadLine) => {
    if (bad.count++ < BAD_LINES_KEPT) bad.first.push(line);
    onBadLine(line);
  };
  const read = {lines: 0, mills: 0n};
  let bytes = 0;
  const rows = async function* () {
    const onRead = (more: number) => {
      bytes += more;
      progress({done: bytes, total: size, what: 'bytes read'});
    };
    for await (const line of invoiceLines(file, {onBad, onRead})) {
      read.lines++;
      read.mills += line.mills * BigInt(line.Quantity);
      yield stagedRow(line);
    }
  };
  return runLoad(pgUrl, {what: basename(file)}, async client => {
    await client.query(STAGE);
    await copyRows(client, 'staged', rows());
    await client.query(PREPARE);
    await writeOrders(client, progress);
    const loaded = await totals(client);
    const expected = {lines: read.lines, lineTotal: formatMills(read.mills)};
    if (loaded.lines !== expected.lines || loaded.lineTotal !== expected.lineTotal)
      throw new Error(
        `read ${JSON.stringify(expected)} from ${file}, but PostgreSQL holds ${JSON.stringify(loaded)}`,
      );
    return {...loaded, bad};
  });
}

/** What the shop holds now; `customers` counts those known by an id, `countries` those of orders. */
export const shopTotals = (pgUrl: string): Promise<Totals> => connected(pgUrl, totals);

async function totals(client: Client): Promise<Totals> {
  const {rows} = await client.query<Totals>(`
    SELECT (SELECT count(*)::int FROM orders) AS orders, count(*)::int AS lines,
      (SELECT count(*)::int FROM customers) AS customers,
      (SELECT count(DISTINCT country)::int FROM orders) AS countries,
      coalesce(sum(quantity * unit_price), 0.000)::text AS "lineTotal"
    FROM order_items`);
  return rows[0]!;
}

const stagedRow = (line: InvoiceLine): Cell[] => [
  line.line,
  line.InvoiceNo,
  line.StockCode,
  line.Description || null,
  line.Quantity,
  line.at,
  formatMills(line.mills),
  line.CustomerID || null,
  line.Country,
];

/** COLLATE "C": exact codes, and byte-wise comparison is what makes the grouping below quick. */
const STAGE = `
  SET work_mem = '64MB';
  SET temp_buffers = '64MB';
  CREATE TEMPORARY TABLE staged (
    line int, invoice text COLLATE "C", code text COLLATE "C", description text, quantity int, at timestamptz,
    price numeric(12,3), customer text COLLATE "C", country text)`;

const PREPARE = `
  CREATE INDEX ON staged (invoice);
  ANALYZE staged;
  INSERT INTO public.customers (id, external_id, name, country, created_at, updated_at)
  SELECT row_number() OVER (ORDER BY min(line)), customer, 'Customer ' || customer,
    (array_agg(country ORDER BY at DESC, line DESC))[1], min(at), max(at)
  FROM staged WHERE customer IS NOT NULL GROUP BY customer;

  INSERT INTO public.products (id, sku, name, price, created_at, updated_at)
  SELECT row_number() OVER (ORDER BY min(line)), code,
    (array_agg(description ORDER BY at DESC, line DESC) FILTER (WHERE description IS NOT NULL))[1],
    coalesce((array_agg(price ORDER BY at DESC, line DESC) FILTER (WHERE price > 0))[1], 0), min(at), max(at)
  FROM staged GROUP BY code;

  CREATE TEMPORARY TABLE invoices AS
  SELECT row_number() OVER (ORDER BY min(line)) AS id, invoice, min(at) AS created_at, max(at) AS updated_at,
    (array_agg(customer ORDER BY line) FILTER (WHERE customer IS NOT NULL))[1] AS customer,
    (array_agg(country ORDER BY line))[1] AS country
  FROM staged GROUP BY invoice;
  CREATE INDEX ON invoices (id);
  ANALYZE invoices, public.products, public.customers`;

const ORDERS = `
  INSERT INTO public.orders (id, order_no, customer_id, status, country, currency, created_at, updated_at)
  SELECT i.id, i.invoice, c.id, CASE WHEN i.invoice LIKE 'C%' THEN 'return' ELSE 'delivered' END::order_status,
    i.country, $3, i.created_at, i.updated_at
  FROM invoices i LEFT JOIN public.customers c ON c.external_id = i.customer
  WHERE i.id > $1 AND i.id <= $2 ORDER BY i.id`;

const ITEMS = `
  INSERT INTO public.order_items
    (id, order_id, line_no, product_id, description, quantity, unit_price, ordered_at)
  SELECT $3::bigint + row_number() OVER (ORDER BY i.id, s.line), i.id,
    row_number() OVER (PARTITION BY i.id ORDER BY s.line), p.id, s.description, s.quantity, s.price, s.at
  FROM invoices i JOIN staged s ON s.invoice = i.invoice JOIN public.products p ON p.sku = s.code
  WHERE i.id > $1 AND i.id <= $2 ORDER BY 1`;

async function writeOrders(client: Client, progress: Progress): Promise<void> {
  const {rows} = await client.query<{total: number}>('SELECT count(*)::int AS total FROM invoices');
  const {total} = rows[0]!;
  let items = 0;
  for (let done = 0; done < total; done += ORDERS_A_PART) {
    progress({done, total, what: 'orders'});
    const part = [done, done + ORDERS_A_PART];
    await client.query('BEGIN');
    await client.query(ORDERS, [...part, CURRENCY]);
    const written = await client.query(ITEMS, [...part, items]);
    await client.query('COMMIT');
    items += written.rowCount!;
  }
  progress({done: total, total, what: 'orders'});
}
