import test from 'ava';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {fillClickHouse, shopRows} from '../../clickhouse/testing/shop-rows.ts';
import {createShopTables, type TestWarehouse, testWarehouse} from '../../clickhouse/testing/warehouse.ts';
import {differences, holdRollups, migrateAndSettle} from './testing/hold-rollups.ts';
import {RandomShop} from './testing/random-shop.ts';

/** When it was written down last up to when the rollups are complete. */
async function toldAt({rows}: TestWarehouse): Promise<unknown> {
  const [row] = await rows<{at: string}>('SELECT max(updated_at) AS at FROM {cdc}._rollup_watermark');
  return row!.at;
}

async function changeMuch(warehouse: TestWarehouse, seed: number): Promise<void> {
  const shop = new RandomShop(warehouse, seed, seed * 10_000_000);
  for (let i = 0; i < 20; i++) await shop.change({wholeTables: false});
  await shop.deliverAll();
}

test('what a release without a rollup works at is in the rollup when its own release is back', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const name = '_sales_months_v1';
  const files = readMigrationFiles().filter(({object}) => object !== name);
  const before = await toldAt(warehouse);

  const without = await holdRollups(warehouse, {files});
  await changeMuch(warehouse, 1);
  await without.rollups.settle();
  t.is(await toldAt(warehouse), before);
  t.deepEqual(without.rollups.leftOut, [name]);
  await without.release();

  const own = await holdRollups(warehouse);
  await own.rollups.settle();
  t.deepEqual(await differences(own.rollups), {});
  const complete = await toldAt(warehouse);
  t.not(complete, before);
  await own.release();

  // Taken away for good.
  await warehouse.run(`DROP TABLE {cdc}.${name} SYNC;`);
  const {rollups} = await holdRollups(warehouse, {files});
  await rollups.settle();
  t.deepEqual(rollups.leftOut, []);
  t.not(await toldAt(warehouse), complete);
});

test('while a table is hidden its rollups are left out, and are filled anew when it is back', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const {rollups} = await holdRollups(warehouse);
  await rollups.settle();
  await warehouse.run('RENAME TABLE {analytics}.products TO {analytics}.hidden;');
  await changeMuch(warehouse, 1);
  await rollups.settle();
  t.true(rollups.leftOut.includes('_product_sales_v1'));
  await warehouse.run('RENAME TABLE {analytics}.hidden TO {analytics}.products;');
  await rollups.settle();
  t.deepEqual(rollups.leftOut, []);
  t.deepEqual(await differences(rollups), {});
});
