import test from 'ava';
import {PipelineError} from '../cdc/failures.ts';
import {migrateAndSettle} from '../cdc/rollups/testing/hold-rollups.ts';
import {migrate, migrationStatus} from './migrate.ts';
import {
  type MigrationFile,
  orderByRequirement,
  parseMigrationFile,
  readMigrationFiles,
} from './migration-files.ts';
import {fillClickHouse, shopRows} from './testing/shop-rows.ts';
import {viewFile} from './testing/view-file.ts';
import {createShopTables, type TestWarehouse, testWarehouse} from './testing/warehouse.ts';

const files = (...some: MigrationFile[]) => orderByRequirement(some);
const shown = async ({rows}: TestWarehouse, name: string) =>
  (await rows<{a: string}>(`SELECT a FROM {analytics}.${name}`)).map(row => row.a);

test('the second run finds everything in place, and what vanished is made again', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  const all = readMigrationFiles().map(file => file.path);
  const first = await migrate(warehouse);
  // Views over rollups come when these are full.
  t.deepEqual([...first.applied, ...first.waiting.map(({file}) => file)].sort(), all.toSorted());
  await migrateAndSettle(warehouse);
  t.deepEqual(await migrate(warehouse), {applied: [], present: all, waiting: []});

  await warehouse.run('DROP VIEW {analytics}.customer_metrics;\nDROP VIEW {analytics}.first_sales_v1;');
  t.deepEqual((await migrate(warehouse)).applied, [
    'views/first_sales.v1.sql',
    'views/customer_metrics.v2.sql',
  ]);
  t.deepEqual(await warehouse.rows('SELECT * FROM {analytics}.customer_metrics'), []);
});

test('runners at once apply each file once', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const results = await Promise.all(Array.from({length: 4}, () => migrate(warehouse)));
  const applied = results.flatMap(result => result.applied);
  t.true(applied.length > 5);
  t.is(new Set(applied).size, applied.length);
  for (const result of results) t.is(result.applied.length + result.present.length, applied.length);
});

test('views wait for their tables and columns, and come later', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const first = await migrate(warehouse);
  t.true(first.applied.includes('views/data_freshness.v1.sql'));
  t.deepEqual(first.waiting.find(({file}) => file === 'views/recent_activity.v1.sql')?.missing, [
    'orders',
    'order_items',
    'customers',
  ]);
  await warehouse.run('CREATE VIEW {analytics}.orders AS SELECT 1 AS id, 2 AS status');
  const {waiting} = await migrationStatus(warehouse);
  t.deepEqual(waiting.find(({file}) => file === 'views/order_facts.v1.sql')?.missing, [
    'orders.order_no',
    'orders.customer_id',
    'orders.country',
    'orders.created_at',
    'orders.currency',
  ]);
  await warehouse.run('DROP VIEW {analytics}.orders');
  await createShopTables(warehouse);
  await migrateAndSettle(warehouse);
  t.deepEqual((await migrationStatus(warehouse)).waiting, []);
});

test('a file that was edited after it had been applied stops everything and is named', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await migrate({...warehouse, files: files(viewFile('one', 1, "SELECT 'a' AS a"))});
  const edited = files(viewFile('one', 1, "SELECT 'b' AS a"), viewFile('two', 1, "SELECT 'c' AS a"));
  const error = await t.throwsAsync(migrate({...warehouse, files: edited}), {instanceOf: PipelineError});
  t.is(error.code, 'ch.migration_changed');
  t.regex(error.message, /views\/one\.v1\.sql/);
  t.deepEqual(await shown(warehouse, 'one'), ['a']);
  t.deepEqual((await migrationStatus({...warehouse, files: edited})).changed, ['views/one.v1.sql']);
});

test('line ends do not change a file', t => {
  const text = '-- version: 1\n-- what: x\n-- changed: y\nSELECT 1;\n';
  const parse = (raw: string) => parseMigrationFile('view', 'views/a.v1.sql', raw);
  t.is(parse(text).sha256, parse(text.replaceAll('\n', '\r\n')).sha256);
  t.throws(() => parse(text.replace('version: 1', 'version: 2')), {message: /a\.v1\.sql/});
});

test('the stable name follows the highest version, also when an older release comes back', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const one = viewFile('one', 1, "SELECT 'first' AS a");
  const two = viewFile('one', 2, "SELECT 'second' AS a FROM {analytics}.later", {requires: 'later'});
  const three = viewFile('one', 3, "SELECT 'third' AS a", {
    before: 'DROP VIEW IF EXISTS {analytics}.one_v1;',
  });
  await migrate({...warehouse, files: files(one, two)});
  t.deepEqual(await shown(warehouse, 'one'), ['first']);

  await warehouse.run('CREATE VIEW {analytics}.later AS SELECT 1');
  await migrate({...warehouse, files: files(one, two)});
  t.deepEqual(await shown(warehouse, 'one'), ['second']);
  t.deepEqual(await shown(warehouse, 'one_v1'), ['first']);
  t.deepEqual(
    await warehouse.rows(
      `SELECT tables.comment AS view, columns.comment AS column FROM system.tables JOIN system.columns
     ON columns.database = tables.database AND columns.table = tables.name
     WHERE tables.database = '${warehouse.databases.analytics}' AND tables.name = 'one'`,
    ),
    [{view: 'version 2', column: "it's a"}],
  );

  t.deepEqual((await migrate({...warehouse, files: files(one)})).applied, []);
  t.deepEqual(await shown(warehouse, 'one'), ['second']);

  await migrate({...warehouse, files: files(one, two, three)});
  t.deepEqual(await shown(warehouse, 'one'), ['third']);
  const again = await migrate({...warehouse, files: files(one, two, three)});
  t.deepEqual(again.applied, [], 'a version that a later file dropped stays away');
});

test('a refused statement is named, and the next run goes on from there', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const good = viewFile('good', 1, "SELECT 'a' AS a");
  const bad = viewFile('more', 1, 'SELECT a FROM {analytics}.missing');
  const error = await t.throwsAsync(migrate({...warehouse, files: files(good, bad)}), {
    instanceOf: PipelineError,
  });
  t.is(error.code, 'ch.migration_failed');
  t.regex(error.message, /views\/more\.v1\.sql/);
  await warehouse.run("CREATE VIEW {analytics}.missing AS SELECT 'z' AS a");
  const again = await migrate({...warehouse, files: files(good, bad)});
  t.deepEqual(again, {applied: ['views/more.v1.sql'], present: ['views/good.v1.sql'], waiting: []});
  t.deepEqual(await shown(warehouse, 'more'), ['z']);
});

test('a runner that died is passed over', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const one = files(viewFile('one', 1, "SELECT 'a' AS a"));
  await migrate({...warehouse, files: one});
  await warehouse.run(
    `INSERT INTO {cdc}._migration_lock (number, event, owner, at) VALUES (7, 'claim', 'dead', now64(6) - INTERVAL 31 SECOND)`,
  );
  const both = files(...one, viewFile('two', 1, "SELECT 'b' AS a"));
  t.deepEqual((await migrate({...warehouse, files: both})).applied, ['views/two.v1.sql']);
  const [last] = await warehouse.rows('SELECT max(number) AS number FROM {cdc}._migration_lock');
  t.deepEqual(last, {number: '8'});
});

test('a runner at work is waited for', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await migrate({...warehouse, files: files(viewFile('one', 1, "SELECT 'a' AS a"))});
  await warehouse.run("INSERT INTO {cdc}._migration_lock (number, event, owner) VALUES (7, 'claim', 'busy')");
  const {promise: seen, resolve: log} = Promise.withResolvers<string>();
  const second = migrate({...warehouse, files: files(viewFile('two', 1, "SELECT 'b' AS a")), log});
  t.regex(await seen, /another runner/);
  t.deepEqual(
    await warehouse.rows(
      `SELECT name FROM system.tables WHERE database = '${warehouse.databases.analytics}' AND name = 'two'`,
    ),
    [],
  );
  await warehouse.run(
    "INSERT INTO {cdc}._migration_lock (number, event, owner) VALUES (7, 'release', 'busy')",
  );
  await second;
  t.deepEqual(await shown(warehouse, 'two'), ['b']);
});

test('another time zone is refused; where it is wanted, views are away until they are filled with its days', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  const days = async () =>
    (
      await warehouse.rows<{day: string}>(
        "SELECT day FROM {analytics}.daily_sales_summary WHERE day BETWEEN '2025-03-08' AND '2025-03-10'",
      )
    ).map(({day}) => day);
  t.deepEqual(await days(), ['2025-03-08', '2025-03-09', '2025-03-10']);
  const elsewhere = {...warehouse, databases: {...warehouse.databases, timeZone: 'America/Los_Angeles'}};
  for (const refused of [migrate(elsewhere), migrateAndSettle(elsewhere)]) {
    const error = await t.throwsAsync(refused, {instanceOf: PipelineError});
    t.is(error.code, 'ch.made_otherwise');
  }
  const {waiting} = await migrate({...elsewhere, changeMadeWith: true});
  t.true(waiting.some(({file}) => file === 'views/daily_sales_summary.v2.sql'));
  await t.throwsAsync(days(), {message: /daily_sales_summary/});
  await migrateAndSettle(elsewhere);
  t.deepEqual(await days(), ['2025-03-08', '2025-03-09']);
  t.deepEqual((await migrate(elsewhere)).waiting, []);

  const inEuros = {...elsewhere, databases: {...elsewhere.databases, currency: 'EUR'}};
  const error = await t.throwsAsync(migrate(inEuros), {instanceOf: PipelineError});
  t.is(error.code, 'ch.made_otherwise');
  await migrate({...inEuros, changeMadeWith: true});
  await migrateAndSettle(inEuros);
  t.deepEqual(await days(), []); // all are in pounds
  const [other] = await warehouse.rows<{currency: string}>(
    'SELECT currency FROM {analytics}.other_currencies',
  );
  t.is(other?.currency, 'GBP');
});
