import {mkdir, mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {ClickHouseError, createClient} from '@clickhouse/client';
import test, {type ExecutionContext} from 'ava';
import {migrateAndSettle} from '../cdc/rollups/testing/hold-rollups.ts';
import {clickhouse, clickhouseUrl} from '../scripts/stack/clickhouse.ts';
import {anyFreePort} from '../scripts/stack/ports.ts';
import {supervise} from '../scripts/stack/supervisor.ts';
import {accessSql, usersXml} from './access.ts';
import {migrate} from './migrate.ts';
import {statementsOf} from './migration-files.ts';
import {createShopTables, testWarehouse} from './testing/warehouse.ts';

const passwords = {freshet: "f'1", grafana: 'g<2', explorer: 'e&3'};
const databases = {cdc: 'own-cdc', analytics: 'own`analytics'};

/** A ClickHouse of its own with these users. */
async function startServer(t: ExecutionContext, clickhouseUsersXml: string): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'freshet-access-'));
  await Promise.all(['clickhouse', 'log'].map(name => mkdir(path.join(dir, name))));
  const [clickhouseHttp, clickhouseNative] = [await anyFreePort(), await anyFreePort()];
  const ports = {postgres: 0, kafka: 0, clickhouseHttp, clickhouseNative};
  const site = {dir: path.join(dir, 'clickhouse'), ports, durable: false, clickhouseUsersXml};
  const server = supervise('clickhouse', clickhouse, site, {changed() {}, died() {}});
  t.teardown(async () => {
    await server.stop();
    await rm(dir, {recursive: true, force: true});
  });
  await server.start();
  return clickhouseUrl(site);
}

test('the local server: who may do what', async t => {
  const url = await startServer(t, usersXml({databases, passwords}));
  const as = (username: keyof typeof passwords, password = passwords[username]) => {
    const client = createClient({url, username, password, log: {level: 127}});
    t.teardown(() => client.close());
    const run = async (sql: string, settings = {}) => {
      const query = statementsOf(sql, databases)[0]!;
      const result = await client.query({query, format: 'JSONEachRow', clickhouse_settings: settings});
      return await result.json<Record<string, unknown>>();
    };
    const refuses = async (sql: string, type: string, settings = {}) => {
      const error = await t.throwsAsync(run(sql, settings), {instanceOf: ClickHouseError}, sql);
      t.is(error?.type, type, sql);
    };
    return {client, run, refuses};
  };

  // The pipeline makes everything with no more rights than its own.
  const {client, run} = as('freshet');
  const command = async (sql: string) => {
    for (const query of statementsOf(sql, databases)) await client.command({query});
  };
  await createShopTables({run: command});
  await migrateAndSettle({client, databases});
  t.deepEqual((await migrate({client, databases})).waiting, []);
  await command(
    "INSERT INTO {cdc}.public__customers (id, name, country, _version) VALUES (1, 'Ada', 'DE', 1), (2, 'Bob', 'FR', 1)",
  );
  t.deepEqual(await run('SELECT count() > 0 AS some FROM system.parts'), [{some: 1}]);
  await as('freshet').refuses('CREATE DATABASE other', 'ACCESS_DENIED');

  // A dashboard reads the views without a right on what is behind them, filters them, and nothing else.
  const grafana = as('grafana');
  t.deepEqual(await grafana.run('SELECT count() AS n FROM {analytics}.customers'), [{n: 2}]);
  t.is((await grafana.run('SELECT * FROM {analytics}.hourly_orders_trend')).length, 24);
  const filter = "{'own`analytics.customers': 'country = ''DE'''}".replaceAll("''", "\\'");
  t.deepEqual(
    await grafana.run('SELECT name FROM {analytics}.customers', {
      max_execution_time: 20,
      additional_table_filters: filter,
    }),
    [{name: 'Ada'}],
  );
  await grafana.refuses('SELECT count() FROM {cdc}.public__customers', 'ACCESS_DENIED');
  await grafana.refuses('DROP VIEW {analytics}.customers', 'ACCESS_DENIED');
  await grafana.refuses('SELECT 1', 'SETTING_CONSTRAINT_VIOLATION', {max_execution_time: 100_000});
  await grafana.refuses('SELECT 1', 'READONLY', {max_memory_usage: '0'});

  const explorer = as('explorer');
  t.deepEqual(
    await explorer.run('SELECT count() AS n FROM {cdc}.public__customers FINAL', {max_threads: 1}),
    [{n: 2}],
  );
  await explorer.refuses('INSERT INTO {cdc}.public__customers (id) SELECT 1', 'ACCESS_DENIED');
  await explorer.refuses('SELECT 1', 'SETTING_CONSTRAINT_VIOLATION', {max_execution_time: 0});
  await explorer.refuses('SELECT * FROM numbers(100000000)', 'TOO_MANY_ROWS_OR_BYTES');

  await as('explorer', 'wrong').refuses('SELECT 1', 'AUTHENTICATION_FAILED');
});

test('the SQL for real servers is accepted by ClickHouse, and holds no password', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  for (const onCluster of [undefined, 'main']) {
    const sql = accessSql({databases, passwords, ...(onCluster && {onCluster})});
    for (const password of Object.values(passwords)) t.false(sql.includes(password));
    const statements = statementsOf(sql, {cdc: '', analytics: ''});
    t.true(statements.length > 15);
    for (const statement of statements)
      await t.notThrowsAsync(warehouse.rows(`EXPLAIN AST ${statement}`), statement);
  }
});
