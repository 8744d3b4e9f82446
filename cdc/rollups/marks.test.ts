import test from 'ava';
import {takeLock} from '../../clickhouse/lock.ts';
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

test('who wakes up late takes no marks from the one who has taken over', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const late = await holdRollups(warehouse);
  await warehouse.run(change('public__order_items', 1_000_000));
  const {stopped, goOn, beforeWrite} = pauseBefore(10);
  const {rollups} = await holdRollups(warehouse, {fromHolder: true, beforeWrite});
  const settled = rollups.settle();
  await Promise.race([stopped, settled]);
  await t.throwsAsync(late.rollups.settle(), {code: 'ch.rollups_taken'});
  goOn();
  await settled;
  t.deepEqual(await differences(rollups), {});
});

test('what is compared under a lock that is lost is not told to be equal', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const {rollups} = await holdRollups(warehouse);
  const parts = rollups.check({repair: false});
  t.like(await parts.next(), {done: false});
  await takeLock(warehouse.client, warehouse.databases, 'rollups', {patienceMs: 10_000, fromHolder: true});
  await t.throwsAsync(parts.next(), {code: 'ch.rollups_taken'});
});

test('marks that were left of a target with another key do not keep the rollups from the one that is there', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  await warehouse.run(change('public__order_items', 1_000_000));
  const killed = new Error('killed');
  const before = await holdRollups(warehouse, {
    beforeWrite: () => {
      throw killed;
    },
  });
  await t.throwsAsync(before.rollups.settle(), {is: killed});
  await before.release();
  // Marks that were taken, as of a process that went on a little further.
  await warehouse.run(
    `CREATE TABLE IF NOT EXISTS {cdc}._batch_order_items_2 AS {cdc}._marks_order_items;
     INSERT INTO {cdc}._batch_order_items_2 SELECT * FROM {cdc}._marks_order_items;
     CREATE TABLE {cdc}.public__order_items__2 ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id
       EMPTY AS SELECT * REPLACE (toInt32(id) AS id) FROM {cdc}.public__order_items;
     INSERT INTO {cdc}.public__order_items__2 SELECT * FROM {cdc}.public__order_items FINAL;
     CREATE OR REPLACE VIEW {analytics}.order_items SQL SECURITY DEFINER AS
       SELECT * EXCEPT (_version, _is_deleted, _commit_ts, _ingested_at) FROM {cdc}.public__order_items__2 FINAL WHERE _is_deleted = 0;`,
  );
  const {rollups} = await holdRollups(warehouse);
  await rollups.settle();
  t.deepEqual(await differences(rollups), {});
  await warehouse.run(change('public__order_items__2', 1_000_001));
  await rollups.settle();
  t.deepEqual(await differences(rollups), {});
});

test('a mark that comes before its row waits for it, also where the target was made again under its name', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const {run, rows, databases} = warehouse;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  await run(
    `CREATE TABLE {cdc}.restored AS {cdc}.public__order_items;
     INSERT INTO {cdc}.restored SELECT * FROM {cdc}.public__order_items;
     DROP TABLE {cdc}.public__order_items SYNC;
     RENAME TABLE {cdc}.restored TO {cdc}.public__order_items;`,
  );
  const {rollups} = await holdRollups(warehouse);
  await rollups.settle();
  await run('OPTIMIZE TABLE {cdc}.public__order_items FINAL;\nSYSTEM STOP MERGES {cdc}.public__order_items;');
  await run(change('public__order_items', 1_000_000));
  const [part] = await rows<{name: string}>(
    `SELECT name FROM system.parts WHERE database = '${databases.cdc}' AND table = 'public__order_items' AND active ORDER BY min_block_number DESC LIMIT 1`,
  );
  // Its mark can be seen, and the row cannot.
  await run(`ALTER TABLE {cdc}.public__order_items DETACH PART '${part!.name}'`);
  await rollups.cycle();
  await run(`ALTER TABLE {cdc}.public__order_items ATTACH PART '${part!.name}'`);
  await rollups.settle();
  t.deepEqual(await differences(rollups), {});
});

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
