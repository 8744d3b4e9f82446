import test from 'ava';
import {loadHistory} from './history.ts';
import {createShop, runLoad, shopState} from './schema.ts';
import {type TestDatabase, testDatabase} from './test-database.ts';

const NOW = new Date('2026-03-15T14:21:07.500Z');
const SMALL = {seed: 11, customers: 300, products: 60, days: 12, now: NOW};

const checksums = (db: TestDatabase) =>
  db.rows<{name: string; sum: string}>(
    ['customers', 'products', 'orders', 'order_items']
      .map(
        name => `SELECT '${name}' AS name, md5(string_agg(t::text, '|' ORDER BY id)) AS sum FROM ${name} t`,
      )
      .join(' UNION ALL '),
  );

test('the same seed and now give the same rows, another seed others', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  t.deepEqual(await shopState(db.url), {state: 'empty'});
  await loadHistory(db.url, SMALL);
  const first = await checksums(db);
  const state = await shopState(db.url);
  t.like(state, {state: 'loaded', what: 'history', seed: '11'});
  await loadHistory(db.url, SMALL);
  t.deepEqual(await checksums(db), first);
  await loadHistory(db.url, {...SMALL, seed: 12});
  const other = await checksums(db);
  for (const [index, {name, sum}] of first.entries()) t.not(other[index]!.sum, sum, name);
});

test('a load that was killed is seen, and made again from scratch', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await loadHistory(db.url, SMALL);
  const whole = await checksums(db);
  await t.throwsAsync(
    runLoad(db.url, {what: 'history', seed: 11}, async client => {
      await client.query(`INSERT INTO products (id, sku, price) VALUES (999, 'half a load', 1)`);
      await db.rows(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'freshet shop' AND pid <> pg_backend_pid()`);
      await client.query('SELECT 1');
    }),
  );
  t.deepEqual(await shopState(db.url), {state: 'unfinished', what: 'history'});
  t.is((await db.rows('SELECT FROM products')).length, 1);
  await loadHistory(db.url, SMALL);
  t.deepEqual(await checksums(db), whole);
  t.is((await shopState(db.url)).state, 'loaded');
});

test('the history has the shapes of trade', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  const {orders} = await loadHistory(db.url, {seed: 5, customers: 2_000, products: 100, now: NOW});
  t.true(orders > 25_000 && orders < 30_000, `${orders} orders`);

  const statuses = await db.rows<{status: string; share: number}>(
    `SELECT status, (count(*) / sum(count(*)) OVER ())::float8 AS share FROM orders
     WHERE status <> 'return' GROUP BY status`,
  );
  const share = Object.fromEntries(statuses.map(row => [row.status, row.share]));
  t.deepEqual(Object.keys(share).sort(), [
    'cancelled',
    'delivered',
    'paid',
    'pending',
    'refunded',
    'shipped',
  ]);
  t.true(share.cancelled! > 0.035 && share.cancelled! < 0.047, `cancelled ${share.cancelled}`);
  t.true(share.refunded! > 0.025 && share.refunded! < 0.035, `refunded ${share.refunded}`);
  t.true(share.delivered! > 0.8);

  const [facts] = await db.rows<Record<string, number>>(
    `
    WITH sales AS (SELECT * FROM orders WHERE status <> 'return'), by_day AS (
      SELECT extract(isodow FROM created_at) AS day, count(*)::float8 AS n FROM sales GROUP BY date(created_at), 1)
    SELECT
      (SELECT avg(n) FROM by_day WHERE day BETWEEN 2 AND 5) / (SELECT avg(n) FROM by_day WHERE day > 5) AS weekly,
      count(*) FILTER (WHERE extract(hour FROM created_at) = 12)::float8
        / count(*) FILTER (WHERE extract(hour FROM created_at) = 3) AS daily,
      count(DISTINCT country)::int AS countries,
      (count(*) FILTER (WHERE country = 'United Kingdom'))::float8 / count(*) AS home,
      (count(*) FILTER (WHERE customer_id IS NULL))::float8 / count(*) AS guests,
      count(*)::float8 / count(DISTINCT customer_id) AS repeat,
      (SELECT count(*)::float8 FROM order_items) / (SELECT count(*) FROM orders) AS lines,
      (SELECT count(*)::int FROM orders WHERE greatest(created_at, updated_at) > $1
        OR created_at > updated_at OR created_at < $1 - interval '90 days') AS bad_times,
      (SELECT count(*)::int FROM customers c JOIN orders o ON o.customer_id = c.id
        WHERE o.created_at < c.created_at) AS before_account,
      (SELECT count(*)::int FROM orders o WHERE NOT EXISTS (SELECT FROM order_items WHERE order_id = o.id)) AS empty,
      (SELECT count(*)::int FROM orders o JOIN orders p ON p.id = o.id - 1 WHERE o.created_at < p.created_at)
        AS unordered
    FROM sales`.replaceAll('$1', `timestamptz '${NOW.toISOString()}'`),
  );
  const {weekly, daily, countries, home, guests, repeat, lines, ...violations} = facts!;
  t.true(weekly! > 1.3, `weekdays are ${weekly} times a weekend's day`);
  t.true(daily! > 5, `noon is ${daily} times the night`);
  t.is(countries, 35);
  t.true(home! > 0.45 && home! < 0.6);
  t.true(guests! > 0.05 && guests! < 0.09);
  t.true(repeat! > 5 && lines! > 2 && lines! < 3, `${repeat} orders a customer, ${lines} lines an order`);
  t.deepEqual(violations, {bad_times: 0, before_account: 0, empty: 0, unordered: 0});

  const refunds = await db.rows<{total: string; returns: string}>(`
    SELECT sum(quantity * unit_price)::text AS total, count(DISTINCT o.id) FILTER (WHERE status = 'return') AS returns
    FROM orders o JOIN order_items i ON i.order_id = o.id WHERE status IN ('refunded', 'return')
    GROUP BY coalesce(returns_order_id, o.id)`);
  t.true(refunds.length > 500 && refunds.every(({total, returns}) => total === '0.000' && returns === '1'));
});

test('descriptions are stored out of line', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await loadHistory(db.url, {...SMALL, days: 1});
  const [sizes] = await db.rows<{toasted: number; products: number; smallest: number; main: number}>(`
    SELECT (SELECT min(pg_column_size(description)) FROM products) AS smallest,
      (SELECT count(*)::int FROM products) AS products, pg_relation_size(oid)::int AS main,
      pg_total_relation_size(reltoastrelid)::int AS toasted
    FROM pg_class WHERE oid = 'products'::regclass`);
  t.true(sizes!.smallest > 2_048, JSON.stringify(sizes));
  t.true(
    sizes!.toasted > sizes!.products * 4_096 && sizes!.main < sizes!.products * 1_024,
    JSON.stringify(sizes),
  );
});

test('the schema can run twice, keeps what is there, and new rows get new ids', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await createShop(db.url);
  await createShop(db.url);
  await loadHistory(db.url, {...SMALL, days: 1});
  const before = await checksums(db);
  await createShop(db.url);
  t.deepEqual(await checksums(db), before);
  const [row] = await db.rows(`INSERT INTO products (sku, price) VALUES ('new', 1) RETURNING id`);
  t.deepEqual(row, {id: '61'});
});

test('tables that are not the shop’s are left alone', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await db.rows('CREATE TABLE orders (id int)');
  await db.rows('INSERT INTO orders VALUES (1)');
  const error = await t.throwsAsync(loadHistory(db.url, SMALL));
  t.regex(error!.message, /not the demo shop's: orders/);
  t.deepEqual(await db.rows('SELECT * FROM orders'), [{id: 1}]);
});

test('a second load at the same time is refused', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await runLoad(db.url, {what: 'first'}, async () => {
    await t.throwsAsync(loadHistory(db.url, SMALL), {message: /another load/});
    t.deepEqual(await shopState(db.url), {state: 'unfinished', what: 'first'});
  });
  t.like(await shopState(db.url), {state: 'loaded', what: 'first', seed: null});
});
