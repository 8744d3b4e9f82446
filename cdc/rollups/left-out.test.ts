import test from 'ava';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {fillClickHouse, shopRows} from '../../clickhouse/testing/shop-rows.ts';
import {createShopTables, type TestWarehouse, testWarehouse} from '../../clickhouse/testing/warehouse.ts';
import {quietLog} from '../test-support/quiet-log.ts';
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

for (const {column, wider, value} of [
  {column: 'unit_price', wider: 'Decimal(14, 4)', value: '1.2345'},
  {column: 'quantity', wider: 'Int64', value: '3000000000'},
]) {
  test(`a ${column} of ${wider} is never cut to what its rollup holds`, async t => {
    const warehouse = testWarehouse(t);
    if (!warehouse) return;
    const {run, rows} = warehouse;
    await createShopTables(warehouse);
    await fillClickHouse(warehouse, shopRows());
    await migrateAndSettle(warehouse);
    const [line] = await rows<{id: string}>('SELECT id FROM {cdc}.public__order_items ORDER BY id LIMIT 1');
    const stored = (): Promise<unknown[]> =>
      rows(`SELECT ${column} FROM {cdc}._order_lines_v1 FINAL WHERE line_id = ${line!.id}`);
    const write = (what: string, version: number): Promise<void> =>
      run(
        `INSERT INTO {cdc}.public__order_items SELECT * REPLACE (${what} AS ${column}, ${version} AS _version) FROM {cdc}.public__order_items FINAL WHERE id = ${line!.id};`,
      );
    await run(
      `ALTER TABLE {cdc}.public__order_items MODIFY COLUMN ${column} ${wider} SETTINGS alter_sync = 0;`,
    );
    await write(`CAST('${value}', '${wider}')`, 10_000_000);

    // As the view shows it, which has the type of before.
    const cut = await holdRollups(warehouse);
    await cut.rollups.settle();
    await cut.release();
    const [was, before] = [await stored(), await toldAt(warehouse)];
    await run(
      `CREATE OR REPLACE VIEW {analytics}.order_items SQL SECURITY DEFINER AS
         SELECT * EXCEPT (_version, _is_deleted, _commit_ts, _ingested_at) FROM {cdc}.public__order_items FINAL WHERE _is_deleted = 0;`,
    );
    const errors: string[] = [];
    const log = {...quietLog(), error: (_: object, message: string) => void errors.push(message)};
    const first = await holdRollups(warehouse, {log});
    await first.rollups.settle();
    t.regex(errors.join(), new RegExp(`_order_lines_v1\\.\`?${column}\`? is .* does not hold`));
    t.true(errors.join().includes(wider));
    const compared: string[] = [];
    for await (const {rollup} of first.rollups.check({repair: false})) compared.push(rollup);
    for (const name of ['_order_lines_v1', '_sales_days_v1']) {
      t.true(first.rollups.leftOut.includes(name));
      t.false(compared.includes(name));
    }
    t.is(await toldAt(warehouse), before);
    t.deepEqual(await stored(), was);
    await first.release();

    await write('2', 10_000_001);
    const {rollups} = await holdRollups(warehouse);
    await rollups.settle();
    t.deepEqual(await differences(rollups), {});
    t.not(await toldAt(warehouse), before);
  });
}
