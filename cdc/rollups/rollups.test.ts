import test, {type ExecutionContext} from 'ava';
import {migrate} from '../../clickhouse/migrate.ts';
import {fillClickHouse, shopRows} from '../../clickhouse/testing/shop-rows.ts';
import {createShopTables, type TestWarehouse, testWarehouse} from '../../clickhouse/testing/warehouse.ts';
import {PipelineError} from '../failures.ts';
import {holdRollups, migrateAndSettle} from './testing/hold-rollups.ts';
import {RandomShop} from './testing/random-shop.ts';
import type {Rollups} from './worker.ts';

/** Views over rollups. Their first versions are the same by FINAL. */
const VIEWS = [
  'daily_sales_summary',
  'monthly_sales_summary',
  'hourly_orders_trend',
  'customer_metrics',
  'top_customers_by_orders',
  'product_performance',
  'top_selling_products',
  'recent_activity',
];

async function equal(t: ExecutionContext, {rows}: TestWarehouse, what: string, views = VIEWS): Promise<void> {
  for (const view of views) {
    const [shown, wanted] = [
      await rows(`SELECT * FROM {analytics}.${view}`),
      await rows(`SELECT * FROM {analytics}.${view}_v1`),
    ];
    t.deepEqual(shown, wanted, `${view}, ${what}`);
  }
}

test('a view shows its rollup once that is full, and then what FINAL shows', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrate(warehouse);
  const shows = async (): Promise<unknown> =>
    (
      await warehouse.rows<{query: string}>(
        `SELECT as_select AS query FROM system.tables WHERE database = '${warehouse.databases.analytics}' AND name = 'daily_sales_summary'`,
      )
    )[0]!.query;
  t.regex(String(await shows()), /daily_sales_summary_v1$/);
  const {rollups} = await holdRollups(warehouse, {most: 40});
  await rollups.settle();
  t.regex(String(await shows()), /daily_sales_summary_v2$/);
  t.deepEqual((await migrate(warehouse)).waiting, []);
  await equal(t, warehouse, 'filled');
});

/** Buckets that differ, by rollup. */
async function differences(rollups: Rollups, repair = false): Promise<Record<string, readonly string[]>> {
  const found: Record<string, readonly string[]> = {};
  for await (const {rollup, buckets} of rollups.check({repair}))
    if (buckets.length > 0) found[rollup] = buckets;
  return found;
}

class Killed extends Error {}

test('whatever is written, and whenever a run is broken off, rollups come to show what FINAL shows', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await migrate(warehouse);
  const from = Number(process.env.FRESHET_ROLLUP_SEED ?? 1);
  const histories = Number(process.env.FRESHET_ROLLUP_HISTORIES ?? 3);
  let version = 0;
  for (let seed = from; seed < from + histories; seed++) {
    const shop = new RandomShop(warehouse, seed, version);
    const {between} = shop.random;
    /** A process that may be gone at any write: it does nothing more then. */
    const live = async (statements: number, work: (rollups: Rollups) => Promise<void>): Promise<void> => {
      const held = await holdRollups(warehouse, {
        most: between(1, 4) === 1 ? 5 : 1000,
        beforeWrite: () => {
          if (statements-- <= 0) throw new Killed();
        },
      });
      try {
        await work(held.rollups);
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
      }
      await held.release(); // of a process that is gone it is passed over after half a minute
    };
    for (let life = between(1, 4); life > 0; life--) {
      await live(between(1, 60), async rollups => {
        for (let change = between(1, 8); change > 0; change--) {
          await shop.change();
          if (between(0, 2) === 0) await rollups.cycle();
        }
      });
    }
    for (let change = 0; change < 3; change++) await shop.change();
    await shop.deliverAll();
    // Nothing is written behind this one that would touch the same once more.
    await live(between(1, 40), rollups => rollups.settle());
    const {rollups, release} = await holdRollups(warehouse);
    await rollups.settle();
    await equal(t, warehouse, `seed ${seed}`);
    t.deepEqual(await differences(rollups), {}, `seed ${seed}`);
    await release();
    version = shop.version;
  }
});

test('run after run, what changed is added to what was there, and comes to what FINAL shows', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await migrateAndSettle(warehouse);
  const {rollups} = await holdRollups(warehouse);
  const shop = new RandomShop(warehouse, 1, 0);
  for (let run = 1; run <= 45; run++) {
    for (let change = shop.random.between(1, 4); change > 0; change--)
      await shop.change({wholeTables: false});
    await rollups.cycle();
    // What one run leaves wrong a later one may mend.
    await equal(t, warehouse, `run ${run}`, [
      'customer_metrics',
      'product_performance',
      'daily_sales_summary',
    ]);
  }
  t.deepEqual(await differences(rollups), {});
});

test('whoever was taken for dead, and goes on, writes nothing more', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  const shop = new RandomShop(warehouse, 1, 0);
  for (let i = 0; i < 20; i++) await shop.change();
  await migrateAndSettle(warehouse);
  for (const statement of [2, 9, 20, 31]) {
    for (let i = 0; i < 5; i++) await shop.change();
    const stopped = Promise.withResolvers<void>();
    const goOn = Promise.withResolvers<void>();
    let count = 0;
    const first = await holdRollups(warehouse, {
      beforeWrite: async () => {
        count += 1;
        if (count !== statement) return;
        stopped.resolve();
        await goOn.promise;
      },
    });
    const late = first.rollups.settle();
    await Promise.race([stopped.promise, late]);
    const second = await holdRollups(warehouse, {fromHolder: true});
    for (let i = 0; i < 5; i++) await shop.change();
    await second.rollups.settle();
    goOn.resolve();
    await t.throwsAsync(late, {instanceOf: PipelineError});
    await shop.deliverAll();
    await second.rollups.settle();
    await equal(t, warehouse, `broken off at ${statement}`);
    await second.release();
  }
});

test('where tables hold more than the ledger knows of, as behind a restore, all is filled anew', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const restored = [
    '_customer_totals_v1',
    '_customer_sales_v1',
    '_product_sales_v1',
    '_sales_slots_v1',
    '_sales_days_v1',
  ];
  for (const table of ['_rollup_runs', ...restored])
    await warehouse.run(`CREATE TABLE {cdc}.${table}_before AS {cdc}.${table};
      INSERT INTO {cdc}.${table}_before SELECT * FROM {cdc}.${table};`);
  const shop = new RandomShop(warehouse, 3, 10_000_000);
  for (let i = 0; i < 12; i++) await shop.change({wholeTables: false});
  await shop.deliverAll();
  const first = await holdRollups(warehouse);
  await first.rollups.settle();
  await first.release();
  // As of a backup that took these tables before the run, and its others behind it.
  for (const table of ['_rollup_runs', ...restored])
    await warehouse.run(`TRUNCATE TABLE {cdc}.${table};
      INSERT INTO {cdc}.${table} SELECT * FROM {cdc}.${table}_before;
      DROP TABLE {cdc}.${table}_before SYNC;`);
  await shop.change({wholeTables: false});
  await shop.deliverAll();
  const {rollups} = await holdRollups(warehouse);
  await rollups.settle();
  await equal(t, warehouse, 'restored');
  t.deepEqual(await differences(rollups), {});
});

test('who takes the rollups over leaves tables of others alone, whatever they are called', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  await warehouse.run(
    `CREATE TABLE {cdc}.public__product_images (id Int64) ENGINE = MergeTree PARTITION BY id ORDER BY id;
     INSERT INTO {cdc}.public__product_images VALUES (1), (2);`,
  );
  await holdRollups(warehouse);
  t.deepEqual(await warehouse.rows('SELECT id FROM {cdc}.public__product_images ORDER BY id'), [
    {id: '1'},
    {id: '2'},
  ]);
});

test('what was counted twice is found, and computed anew', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const {rollups} = await holdRollups(warehouse);
  t.deepEqual(await differences(rollups), {});
  await warehouse.run(
    `INSERT INTO {cdc}._sales_slots_v1 SELECT * REPLACE (orders + 1 AS orders) FROM {cdc}._sales_slots_v1 FINAL WHERE slot = '2025-03-01 00:00:00';
     INSERT INTO {cdc}._customer_starts_v1 SELECT '2025-02-02', customer_id, at, _run, _is_deleted FROM {cdc}._customer_starts_v1 FINAL WHERE customer_id = 8;`,
  );
  const wrong = {_sales_slots_v1: ["('2025-03-01 00:00:00')"], _customer_starts_v1: ['(8)']};
  t.like(await differences(rollups), wrong);
  t.like(await differences(rollups, true), wrong);
  t.deepEqual(await differences(rollups), {});
  await equal(t, warehouse, 'computed anew');
});
