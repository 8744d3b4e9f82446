import type {Socket} from 'node:net';
import test from 'ava';
import pg from 'pg';
import {command, insertCopyText} from '../sink/clickhouse.ts';
import {copyStatement, createTarget} from '../sink/target.ts';
import {readRows} from '../source/chunk-rows.ts';
import {readServerVersion} from '../source/postgres.ts';
import {planTables} from '../source/tables.ts';
import {startProxy} from '../test-support/proxy.ts';
import {makeWorld, server, startPipeline} from '../test-support/start-pipeline.ts';
import {captured} from '../types/testing/compare.ts';

const PLAIN = /query=INSERT[^ ]*FORMAT(\+|%20)TabSeparated/;
const ENCODED = /a chunk goes by the encoder/;

test('rows that ClickHouse did not take as they are go by the encoder, whatever was taken before', async t => {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const cut = network.on(PLAIN, 'cut', 1);
  const lost = network.on(PLAIN, 'lose answer', 1);
  const world = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, md5(i::text) FROM generate_series(1, 3000) i;
     CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT i, md5(i::text) FROM generate_series(1, 3000) i`,
    {FRESHET_CLICKHOUSE_URL: network.url, FRESHET_SNAPSHOT_WORKERS: '1'},
  );
  await world.caughtUp();
  t.deepEqual([cut.count, lost.count], [1, 1]);
  t.is(world.log.lines.filter(line => ENCODED.test(line)).length, 2);
  for (const table of ['a', 'b'])
    t.deepEqual(
      await world.query(`SELECT id, v FROM {an}.${table} ORDER BY id`),
      (await world.pg.query(`SELECT * FROM ${table} ORDER BY id`)).rows,
    );
});

test('a row that was cut off, and a NULL that cannot be, are refused instead of stored as something else', async t => {
  const world = await makeWorld(
    t,
    'CREATE TABLE a (id int PRIMARY KEY, v text NOT NULL, e char NOT NULL, w text)',
  );
  const {ch, settings, query} = world;
  await command(ch, `CREATE DATABASE ${settings.FRESHET_CLICKHOUSE_DATABASE}`);
  const [table] = await captured(world);
  await createTarget(ch, settings, table!);
  const statement = copyStatement(settings, table!, {version: 1n, commitMicros: 0n});
  const insert = (text: string): Promise<void> =>
    insertCopyText(
      ch,
      statement,
      (async function* () {
        yield Buffer.from(text);
      })(),
      new AbortController().signal,
    );
  const refused = {code: 'ch.rejected'};
  await t.throwsAsync(insert('1\t\\N\te\tw\t0\n'), refused);
  await t.throwsAsync(insert('\\N\tv\te\tw\t0\n'), refused);
  await t.throwsAsync(insert('1\tv\te\tcut o'), refused);
  await t.throwsAsync(insert('1\tv\te'), refused);
  t.deepEqual(await query('SELECT * FROM {cdc}.public__a'), []);
  await insert('1\t\te\t\\N\t0\n2\t\\\\N\te\t\\\\N\t0\n');
  t.deepEqual(await query('SELECT id, v, w FROM {cdc}.public__a ORDER BY id'), [
    {id: 1, v: '', w: null},
    {id: 2, v: '\\N', w: '\\N'},
  ]);
});

test('a connection that breaks before anybody reads its rows is told, as one that breaks later', async t => {
  const world = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)');
  const {captured: tables} = await planTables(world.pg, world.settings, await readServerVersion(world.pg));
  const client = new pg.Client(world.settings.FRESHET_PG_URL);
  const gone = new Promise(resolve => client.once('end', resolve));
  client.on('error', () => {});
  await client.connect();
  const {stream} = (client as unknown as {connection: {stream: Socket}}).connection;
  const target = {
    batchBytes: 1,
    newBatch: () => t.fail() as never,
    signal: new AbortController().signal,
    pipe: async (_: unknown, data: AsyncIterable<Buffer>) => {
      stream.destroy(Object.assign(new Error('read ECONNRESET'), {code: 'ECONNRESET'}));
      await gone;
      for await (const _piece of data);
      return true;
    },
  };
  const chunk = {number: 0, from: 0, to: undefined};
  await t.throwsAsync(
    readRows(client, {table: tables[0]!, chunk, encoded: false}, target, () => {}),
    {code: 'pg.unavailable'},
  );
});
