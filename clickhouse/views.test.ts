import test, {type ExecutionContext} from 'ava';
import {migrateAndSettle} from '../cdc/rollups/testing/hold-rollups.ts';
import {createShop} from '../scripts/shop/schema.ts';
import {testDatabase} from '../scripts/shop/test-database.ts';
import {answers, type Row} from './testing/answers.ts';
import {reference} from './testing/reference.ts';
import {fillClickHouse, fillPostgres, type ShopRows, shopRows} from './testing/shop-rows.ts';
import {createShopTables, testWarehouse} from './testing/warehouse.ts';

const EMPTY: ShopRows = {customers: [], products: [], orders: [], order_items: []};

async function shopInBoth(t: ExecutionContext, shop: ShopRows, timeZone = 'UTC') {
  const pg = await testDatabase(t);
  const warehouse = testWarehouse(t);
  if (!pg || !warehouse) return null;
  warehouse.databases.timeZone = timeZone;
  await createShop(pg.url);
  await fillPostgres(pg, shop);
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shop);
  await migrateAndSettle(warehouse);
  return {
    warehouse,
    analytics: warehouse.databases.analytics,
    timeZone,
    shown: (sql: string) => warehouse.rows<Row>(sql),
    wanted: (sql: string, values: unknown[]) => pg.rows<Row>(sql, values),
  };
}

for (const timeZone of ['UTC', 'America/New_York', 'Asia/Kolkata']) {
  test(`every view shows what PostgreSQL has, with rows delivered twice, late and deleted: ${timeZone}`, async t => {
    const both = await shopInBoth(t, shopRows(), timeZone);
    if (!both) return;
    for (const view of Object.keys(reference('UTC'))) {
      const {shown, wanted} = await answers(both, view);
      t.true(wanted.length > 1, view);
      t.deepEqual(shown, wanted, view);
      const described = await both.warehouse.rows<{undescribed: string[]}>(
        `SELECT groupArrayIf(name, comment = '') AS undescribed FROM system.columns
       WHERE database = '${both.warehouse.databases.analytics}' AND table IN ('${view}', '${view}_v2')`,
      );
      t.deepEqual(described[0]?.undescribed, [], `${view} has a comment on each column`);
    }
  });
}

test('orders in another currency are in no metric, and one view tells of them', async t => {
  const {customers, products, orders, order_items} = shopRows();
  const abroad = {
    customers: [],
    products: [],
    orders: orders.map(order => ({...order, id: Number(order.id) + 1_000_000, currency: 'EUR'})),
    order_items: order_items.map(line => ({
      ...line,
      id: Number(line.id) + 1_000_000_000,
      order_id: Number(line.order_id) + 1_000_000,
    })),
  };
  const both = await shopInBoth(t, {customers, products, orders, order_items});
  if (!both) return;
  await fillClickHouse(both.warehouse, abroad);
  await migrateAndSettle(both.warehouse);
  for (const view of Object.keys(reference('UTC'))) {
    const {shown, wanted} = await answers(both, view);
    t.deepEqual(shown, wanted, view);
  }
  t.deepEqual(await both.warehouse.rows('SELECT currency, orders FROM {analytics}.other_currencies'), [
    {currency: 'EUR', orders: String(new Set(orders.map(({id}) => id)).size)},
  ]);
});

test('over empty tables no view fails, and the hours are there', async t => {
  const both = await shopInBoth(t, EMPTY);
  if (!both) return;
  for (const view of Object.keys(reference('UTC'))) {
    const {shown, wanted} = await answers(both, view);
    t.deepEqual(shown, wanted, view);
    t.is(shown.length, view === 'hourly_orders_trend' ? 24 : 0, view);
  }
});

test('every view can be asked for its first rows by any of its columns', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  for (const view of Object.keys(reference('UTC'))) {
    const columns = await warehouse.rows<{name: string}>(
      `SELECT name FROM system.columns WHERE database = '${warehouse.databases.analytics}' AND table = '${view}'`,
    );
    t.true(columns.length > 3, view);
    for (const {name} of columns) {
      const first = await warehouse.rows<Row>(
        `SELECT * FROM {analytics}.${view} ORDER BY ${name} DESC LIMIT 3`,
      );
      const all = await warehouse.rows<Row>(`SELECT ${name} FROM {analytics}.${view} ORDER BY ${name} DESC`);
      t.deepEqual(
        first.map(row => row[name]),
        all.slice(0, 3).map(row => row[name]),
        `${view} by ${name}`,
      );
    }
  }
});
