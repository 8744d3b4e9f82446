import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {loadDataset} from './dataset.ts';
import {loadHistory} from './history.ts';
import {connected, createShop} from './schema.ts';
import {type TestDatabase, testDatabase, until} from './test-database.ts';
import {startTraffic, type Traffic} from './traffic.ts';

const SHOP = {seed: 3, customers: 200, products: 40, days: 2};

/** What must hold at every moment: each row counts violations. */
const INVARIANTS = {
  'an order without lines': `SELECT FROM orders o WHERE NOT EXISTS (SELECT FROM order_items WHERE order_id = o.id)`,
  'a refund without exactly one return': `SELECT FROM orders o WHERE status = 'refunded'
    AND (SELECT count(*) FROM orders r WHERE r.returns_order_id = o.id) <> 1`,
  'a return of an order that is not refunded': `SELECT FROM orders r JOIN orders o ON o.id = r.returns_order_id
    WHERE o.status <> 'refunded' OR r.status <> 'return' OR r.customer_id IS DISTINCT FROM o.customer_id`,
  'a return whose lines do not mirror the original': `
    SELECT FROM orders r JOIN orders o ON o.id = r.returns_order_id WHERE
      (SELECT array_agg((line_no, product_id, -quantity, unit_price) ORDER BY line_no) FROM order_items WHERE order_id = r.id)
      IS DISTINCT FROM
      (SELECT array_agg((line_no, product_id, quantity, unit_price) ORDER BY line_no) FROM order_items WHERE order_id = o.id)`,
  'a time in the future': `SELECT FROM orders WHERE greatest(created_at, updated_at) > clock_timestamp()`,
  'a live line at another time than its order': `SELECT FROM orders o JOIN order_items i ON i.order_id = o.id
    WHERE i.ordered_at <> o.created_at`,
};

async function assertInvariants(t: ExecutionContext, db: TestDatabase): Promise<void> {
  for (const [name, sql] of Object.entries(INVARIANTS)) t.is((await db.rows(sql)).length, 0, name);
}

function run(t: ExecutionContext, db: TestDatabase, options: Parameters<typeof startTraffic>[1]): Traffic {
  const traffic = startTraffic(db.url, options);
  t.teardown(() => traffic.stop()); // before the database is dropped: the latest teardown runs first
  return traffic;
}

test('busy traffic keeps the shop consistent, and everything that can happen happens', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await loadHistory(db.url, SHOP);
  // As if whoever placed it had ended at once: nobody moves it on.
  const [forgotten] = await db.rows<{id: string}>(`
    UPDATE orders SET status = 'paid', updated_at = now() - interval '1 day'
    WHERE id = (SELECT min(id) FROM orders WHERE status IN ('paid', 'shipped', 'delivered')) RETURNING id`);
  const [before] = await db.rows<{id: string}>('SELECT max(id) AS id FROM orders');
  const errors: Error[] = [];
  const traffic = run(t, db, {rate: 250, seed: 1, pace: 100, onError: error => errors.push(error)});
  const happened = async () => {
    const [seen] = await db.rows<Record<string, boolean>>(
      `SELECT count(DISTINCT status) FILTER (WHERE status <> 'return') = 6 AS states,
        count(*) FILTER (WHERE status = 'return') >= 5 AS refunds,
        (SELECT count(*) < 200 FROM customers WHERE id <= 200) AS erased,
        (SELECT count(*) >= 10 FROM customers WHERE id > 200) AS joined,
        (SELECT count(*) >= 5 FROM customers WHERE updated_at > created_at) AS moved,
        (SELECT count(*) >= 5 FROM products WHERE updated_at > created_at) AS repriced,
        NOT EXISTS (SELECT FROM orders WHERE id = $2 AND status = 'paid') AS resumed
       FROM orders WHERE id > $1`,
      [before!.id, forgotten!.id],
    );
    return Object.values(seen!).every(Boolean);
  };
  await until(async () => traffic.stats().orders >= 600 && (await happened()));
  await traffic.stop();
  const stats = traffic.stats();
  t.deepEqual(errors, []);
  t.is(stats.errors, 0);
  t.true(stats.statements > 2 * stats.orders);
  await assertInvariants(t, db);
  const [placed] = await db.rows<{n: number}>(
    `SELECT count(*)::int AS n FROM orders WHERE id > $1 AND order_no LIKE 'W%'`,
    [before!.id],
  );
  t.true(placed!.n <= stats.orders, 'never more orders than counted; erasures make them fewer');
  await traffic.stop();
  t.deepEqual(traffic.stats(), stats, 'nothing runs after stop');
  const connections = `SELECT FROM pg_stat_activity WHERE datname = $1 AND application_name = 'freshet shop traffic'`;
  await until(async () => (await db.rows(connections, [db.name])).length === 0);
});

test('traffic goes on after the server was away', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await loadHistory(db.url, SHOP);
  const traffic = run(t, db, {rate: 100});
  const admin = (sql: string) => connected(process.env.TEST_PG_URL!, client => client.query(sql));
  await until(() => traffic.stats().orders >= 20);
  await admin(`ALTER DATABASE ${db.name} ALLOW_CONNECTIONS false`);
  await admin(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${db.name}'`);
  await until(() => traffic.stats().errors >= 3);
  const during = traffic.stats();
  await admin(`ALTER DATABASE ${db.name} ALLOW_CONNECTIONS true`);
  await until(() => traffic.stats().orders >= during.orders + 50);
  await traffic.stop();
  await assertInvariants(t, db);
});

test('traffic waits for a shop that has nothing to sell yet, and lives in the invoices of Online Retail', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  await createShop(db.url);
  const errors: string[] = [];
  const early = run(t, db, {rate: 50, onError: error => errors.push(error.message)});
  await until(() => errors.length > 0);
  t.regex(errors[0]!, /no products/);
  t.is(early.stats().orders, 0);
  await early.stop();

  const folder = await mkdtemp(path.join(tmpdir(), 'shop-'));
  t.teardown(() => rm(folder, {recursive: true}));
  const file = path.join(folder, 'few.csv');
  await writeFile(
    file,
    `InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom
C536379,B,Adjust bad debt,-1,2010-12-01 09:41:00,-11062.06,,Unspecified
`,
  );
  await loadDataset(db.url, file);
  const traffic = run(t, db, {rate: 200, pace: 100, onError: error => errors.push(error.message)});
  errors.length = 0;
  const returns = `SELECT FROM orders WHERE status = 'return' AND returns_order_id IS NOT NULL`;
  await until(async () => traffic.stats().orders >= 100 && (await db.rows(returns)).length > 0);
  await traffic.stop();
  t.deepEqual(errors, []);
  await assertInvariants(t, db);
  const [kept] = await db.rows(`SELECT price FROM products WHERE sku = 'B'`);
  t.deepEqual(kept, {price: '0.000'}, 'what has no price gets none');
});
