import {readFile} from 'node:fs/promises';
import test from 'ava';
import {holdRollups} from '../cdc/rollups/testing/hold-rollups.ts';
import {createShop} from '../scripts/shop/schema.ts';
import {testDatabase} from '../scripts/shop/test-database.ts';
import {migrate} from './migrate.ts';
import {orderByRequirement, parseMigrationFile, readMigrationFiles} from './migration-files.ts';
import {fillClickHouse, fillPostgres, shopRows} from './testing/shop-rows.ts';
import {createShopTables, testWarehouse} from './testing/warehouse.ts';
import {viewVersions} from './versions.ts';

test('a view that is made by docs/extend.md shows what PostgreSQL answers, and follows its changes', async t => {
  const pg = await testDatabase(t);
  const warehouse = testWarehouse(t);
  if (!pg || !warehouse) return;
  const page = await readFile(new URL('../docs/extend.md', import.meta.url), 'utf8');
  const blocks = [...page.matchAll(/```sql\n-- (\S+)\n(.*?)```/gs)].map(([, title, text]) => ({
    title: title!,
    text: text!,
  }));
  const added = blocks.flatMap(({title, text}) => {
    const [, folder, path] = /^clickhouse\/((?:rollup|view)s)\/(.+)$/.exec(title) ?? [];
    return folder && path
      ? [parseMigrationFile(folder === 'rollups' ? 'rollup' : 'view', `${folder}/${path}`, text)]
      : [];
  });
  t.is(added.length, 2);
  const files = orderByRequirement([...readMigrationFiles(), ...added]);
  const options = {...warehouse, files};
  await createShop(pg.url);
  await createShopTables(warehouse);
  const reference = blocks.find(({title}) => title === 'reference')!.text;
  const compare = async (what: string): Promise<number> => {
    const shown = await warehouse.rows('SELECT * FROM {analytics}.weekly_sales_summary');
    t.deepEqual(shown, await pg.rows(reference), what);
    return shown.length;
  };

  await fillPostgres(pg, shopRows());
  await fillClickHouse(warehouse, shopRows());
  await migrate(options);
  t.is((await viewVersions(options)).find(({name}) => name === 'weekly_sales_summary')?.shows, 0);
  const {rollups} = await holdRollups(warehouse, {files});
  await rollups.settle();
  t.true((await compare('filled')) > 5);

  // An order goes to another week, one is cancelled, one goes away; each is told of twice.
  await pg.rows(
    `UPDATE orders SET created_at = '2025-02-20' WHERE id = 1; UPDATE orders SET status = 'cancelled' WHERE id = 2;
     DELETE FROM order_items WHERE order_id = 6; DELETE FROM orders WHERE id = 6`,
  );
  for (let time = 0; time < 2; time++) {
    await warehouse.run(
      `INSERT INTO {cdc}.public__orders SELECT * REPLACE ('2025-02-20 00:00:00' AS created_at, 100 AS _version) FROM {cdc}.public__orders FINAL WHERE id = 1;
       INSERT INTO {cdc}.public__orders SELECT * REPLACE ('cancelled' AS status, 101 AS _version) FROM {cdc}.public__orders FINAL WHERE id = 2;
       INSERT INTO {cdc}.public__orders (id, _version, _is_deleted) VALUES (6, 102, 1);`,
    );
    await rollups.settle();
    await compare('changed');
  }
});
