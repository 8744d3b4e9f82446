// `npm run latency`: an independent reader beside a running `npm start`. It writes orders to PostgreSQL and polls
// ClickHouse until they are there, in the table and in the daily view; then it compares what it reads with what it wrote.
import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {textTable} from '../cdc/observe/text-table.ts';
import {loadSettings} from '../cdc/settings/settings.ts';
import {chName, clickhouseClient, rows} from '../cdc/sink/clickhouse.ts';
import {clientConfig, withClient} from '../cdc/source/postgres.ts';
import {percentile} from './bench/percentile.ts';

const ORDERS = 50;
const POLL_MS = 5;
const GIVE_UP_MS = 30_000;

const settings = loadSettings(process.env);
const client = clickhouseClient(settings);
const view = (name: string): string => chName(settings.FRESHET_ANALYTICS_DATABASE, name);
const Written = z.object({id: z.string(), order_no: z.string(), orders_today: z.string()});
const Seen = z.object({order_no: z.string(), country: z.string(), status: z.string(), total: z.string()});
const Count = z.object({n: z.coerce.bigint()});

/** ms until the question is answered with yes; polling adds up to its own interval. */
async function until(startedAt: number, question: () => Promise<boolean>): Promise<number> {
  while (!(await question())) {
    if (performance.now() - startedAt > GIVE_UP_MS)
      throw new Error(`not visible after ${GIVE_UP_MS / 1000} s`);
    await sleep(POLL_MS);
  }
  return performance.now() - startedAt;
}

const inTable: number[] = [];
const inView: number[] = [];
let wrong = 0;
await withClient(clientConfig(settings), async postgres => {
  for (let i = 0; i < ORDERS; i++) {
    const {rows: found} = await postgres.query(
      `WITH o AS (
         INSERT INTO orders (order_no, status, country, currency)
         VALUES ('L' || gen_random_uuid(), 'pending', 'Iceland', 'GBP') RETURNING id, order_no, created_at
       ), i AS (
         INSERT INTO order_items (order_id, line_no, product_id, description, quantity, unit_price, ordered_at)
         SELECT id, 1, (SELECT min(p.id) FROM products p), 'measured', 3, 1.125, created_at FROM o
       )
       SELECT id::text, order_no, (SELECT count(*) + 1 FROM orders WHERE created_at >= date_trunc('day', now(), 'UTC'))::text
         AS orders_today FROM o`,
    );
    const committed = performance.now();
    const {id, order_no, orders_today} = Written.parse(found[0]);
    inTable.push(
      await until(committed, async () => {
        const [row] = await rows(
          client,
          Seen,
          `SELECT o.order_no AS order_no, o.country AS country, o.status AS status, toString(sum(i.quantity * i.unit_price)) AS total
           FROM ${view('orders')} AS o INNER JOIN (SELECT * FROM ${view('order_items')} WHERE order_id = ${id}) AS i ON i.order_id = o.id
           WHERE o.id = ${id} GROUP BY ALL`,
        );
        if (
          row &&
          (row.order_no !== order_no ||
            row.country !== 'Iceland' ||
            row.status !== 'pending' ||
            row.total !== '3.375')
        ) {
          wrong += 1;
        }
        return row !== undefined;
      }),
    );
    inView.push(
      await until(committed, async () => {
        const [row] = await rows(
          client,
          Count,
          `SELECT orders AS n FROM ${view('daily_sales_summary')} WHERE day = toDate(now('UTC'))`,
        );
        return (row?.n ?? 0n) >= BigInt(orders_today);
      }),
    );
    await postgres.query('DELETE FROM orders WHERE id = $1', [id]);
  }
});
await client.close();

const ms = (values: readonly number[], part: number): string => `${percentile(values, part).toFixed(0)} ms`;
const line = (what: string, values: readonly number[]) => ({
  [`from commit, ${ORDERS} orders`]: what,
  p50: ms(values, 0.5),
  p95: ms(values, 0.95),
  max: ms(values, 1),
});
console.log(
  textTable([line('order and line readable', inTable), line('counted in daily_sales_summary', inView)]),
);
console.log(wrong === 0 ? '✓ all values as written' : `✗ ${wrong} orders differ from what was written`);
process.exit(wrong === 0 ? 0 : 1);
