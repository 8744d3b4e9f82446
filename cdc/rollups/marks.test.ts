import test from 'ava';
import {migrate} from '../../clickhouse/migrate.ts';
import {fillClickHouse, shopRows} from '../../clickhouse/testing/shop-rows.ts';
import {createShopTables, testWarehouse} from '../../clickhouse/testing/warehouse.ts';
import {differences, holdRollups, migrateAndSettle} from './testing/hold-rollups.ts';

/** Of an order line that is there, so that measures change with it. */
const change = (target: string, version: number): string =>
  `INSERT INTO {cdc}.${target} SELECT * REPLACE (quantity + 1 AS quantity, ${version} AS _version) FROM {cdc}.${target} FINAL WHERE id = (SELECT min(id) FROM {cdc}._order_lines_v1);`;

/** `beforeWrite` that stops before this write, and does so until it is told to go on. */
function pauseBefore(write: number) {
  const stopped = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  let count = 0;
  return {
    stopped: stopped.promise,
    goOn: goOn.resolve,
    beforeWrite: async (): Promise<void> => {
      count += 1;
      if (count !== write) return;
      stopped.resolve();
      await goOn.promise;
    },
  };
}

test('marks are as safe from a power cut as the rows', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await migrate(warehouse);
  const {rollups} = await holdRollups(warehouse, {fsync: true});
  await rollups.cycle();
  const kept = await warehouse.rows<{name: string}>(
    `SELECT name FROM system.tables WHERE database = '${warehouse.databases.cdc}' AND match(create_table_query, 'fsync_after_insert = 1, fsync_part_directory = 1') ORDER BY name`,
  );
  t.deepEqual(
    kept.map(({name}) => name),
    ['_batch_', '_marks_'].flatMap(prefix =>
      ['customers', 'order_items', 'orders', 'products'].map(
        name => `${prefix}${name}${prefix === '_batch_' ? '_1' : ''}`,
      ),
    ),
  );
});
