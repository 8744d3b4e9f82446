import {execFile} from 'node:child_process';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import test, {type ExecutionContext} from 'ava';
import pg from 'pg';
import {skip} from '../scripts/stack/skip.ts';
import {exitCode, verify} from './reconcile/verify.ts';
import {parseLsn} from './source/lsn.ts';
import {keepRunning} from './test-support/command-line.ts';
import {makeWorld, type Running, startPipeline, type World} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

/** Transactions are streamed from 64 kB on. */
const DDL = `DO $do$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''64kB''', current_database());
  END $do$;
  CREATE TABLE big (id int PRIMARY KEY, v int NOT NULL, body text);
  CREATE TABLE small (id int PRIMARY KEY)`;
const ON = {FRESHET_PG_STREAMING: 'on'};

const insert = (from: number, to: number): string =>
  `INSERT INTO big SELECT n, n % 100, md5(n::text) FROM generate_series(${from}, ${to}) n`;

/** With the setting on. */
async function running(t: ExecutionContext, more: Record<string, string> = {}): Promise<Running> {
  const world = await startPipeline(t, DDL, {...ON, ...more});
  await world.caughtUp();
  return world;
}

async function session(t: ExecutionContext, world: World): Promise<pg.Client> {
  const client = new pg.Client(world.settings.FRESHET_PG_URL);
  client.on('error', () => {});
  await client.connect();
  t.teardown(() => client.end());
  return client;
}

/** Transactions that the slot has streamed since it was made. */
async function streamed(world: World): Promise<number> {
  const {rows} = await world.pg.query<{n: number}>(
    'SELECT stream_txns::int AS n FROM pg_stat_replication_slots WHERE slot_name = $1',
    [world.settings.FRESHET_SLOT],
  );
  return rows[0]?.n ?? 0;
}

async function equal(t: ExecutionContext, world: World): Promise<void> {
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  for (const {table, verdict, differences} of verdicts)
    t.is(verdict, 'equal', `${table} ${JSON.stringify(differences)}`);
  t.is(exitCode(verdicts), 0);
}

for (const how of ['on', 'off']) {
  test(`S12 three large transactions at the same time, with rows that go back with a savepoint (streaming ${how})`, async t => {
    const world = await running(t, {FRESHET_PG_STREAMING: how});
    const sessions = await Promise.all([1, 2, 3].map(() => session(t, world)));
    for (const own of sessions) await own.query('BEGIN');
    for (let piece = 0; piece < 4; piece++) {
      for (const [which, own] of sessions.entries()) {
        const from = which * 100_000 + piece * 6_000 + 1;
        await own.query(
          `SAVEPOINT s; ${insert(1_000_000 + from, 1_000_000 + from + 2_000)}; UPDATE big SET v = -1 WHERE id BETWEEN ${from - 3_000} AND ${from};
           ROLLBACK TO s; ${insert(from, from + 5_999)}; UPDATE big SET v = v + 1 WHERE id BETWEEN ${from - 1_000} AND ${from}`,
        );
        await world.pg.query(`INSERT INTO small VALUES (${piece * 3 + which})`);
      }
    }
    await sessions[1]!.query('COMMIT');
    await sessions[0]!.query('ROLLBACK');
    await sessions[2]!.query('COMMIT');
    await equal(t, world);
    // No version of a row that went back was ever there, nor one of the transaction that did.
    const own = 'SELECT countIf(id > 300000 OR v = -1 OR id <= 100000) AS n FROM {cdc}.public__big';
    t.deepEqual(await world.query(own), [{n: '0'}]);
    t.is((await streamed(world)) > 2, how === 'on');
  });
}

test('a table that is altered within a large transaction', async t => {
  const world = await running(t);
  await world.pg.query(
    `BEGIN; ${insert(1, 4_000)}; ALTER TABLE big ADD COLUMN more text DEFAULT 'there'; ${insert(4_001, 8_000)};
     ALTER TABLE big DROP COLUMN body; INSERT INTO big SELECT n, 1, 'last' FROM generate_series(8001, 12000) n; COMMIT`,
  );
  await equal(t, world);
  t.true((await streamed(world)) > 0);
});

test('a large transaction that alters a table and takes it back comes by protocol 1', async t => {
  const world = await running(t);
  const open = await session(t, world);
  await open.query(
    `BEGIN; ${insert(1, 4_000)}; SAVEPOINT s; ALTER TABLE big ADD COLUMN more text DEFAULT 'never'; ${insert(4_001, 8_000)}`,
  );
  // What lies behind it in the WAL is there: PostgreSQL has sent it too, not knowing what will become of it.
  await world.pg.query('INSERT INTO small VALUES (1)');
  await until(async () => (await world.query('SELECT id FROM {cdc}.public__small')).length === 1);
  await open.query(`ROLLBACK TO s; ${insert(8_001, 12_000)}; COMMIT`);
  await equal(t, world);
  t.deepEqual(
    await world.query("SELECT name FROM system.columns WHERE database = '{cdc}' AND name = 'more'"),
    [],
  );
  t.is(world.log.lines.filter(line => /^warn .*rolls back to a savepoint/.test(line)).length, 1);
});

test('where the files have no room, large transactions come by protocol 1', async t => {
  const world = await running(t, {FRESHET_SPILL_BYTES: '200000'});
  await world.pg.query(insert(1, 10_000));
  await equal(t, world);
  t.is(world.log.lines.filter(line => /^warn .*more than 200000 bytes/.test(line)).length, 1);
  const nowhere = await running(t, {FRESHET_SPILL_DIR: '/dev/null/spill'});
  await nowhere.pg.query(insert(1, 10_000));
  await equal(t, nowhere);
  t.is(nowhere.log.lines.filter(line => /^warn .*ENOTDIR/.test(line)).length, 1);
});

test('on a file system that is full, large transactions come by protocol 1', async t => {
  const folder = await mkdtemp(path.join(tmpdir(), 'freshet-full-'));
  t.teardown(() => rm(folder, {recursive: true}));
  try {
    await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', folder]);
  } catch (error) {
    skip(t, `no file system may be mounted here: ${String(error).split('\n', 1)[0]}`);
    return;
  }
  t.teardown(() => promisify(execFile)('umount', ['--lazy', folder]));
  const world = await running(t, {FRESHET_SPILL_DIR: folder});
  await world.pg.query(insert(1, 20_000));
  await equal(t, world);
  t.is(world.log.lines.filter(line => /^warn .*ENOSPC/.test(line)).length, 1);
});

test('a kill while a transaction is open loses nothing of it, though later ones were acknowledged', async t => {
  const world = await makeWorld(t, DDL, ON);
  const first = keepRunning(t, world.environment, ['run']);
  await until(async () => {
    await world.caughtUp();
    return true;
  });
  const open = await session(t, world);
  await open.query(`BEGIN; ${insert(1, 20_000)}`);
  await world.pg.query('INSERT INTO small VALUES (1)');
  await world.caughtUp();
  t.true((await streamed(world)) > 0);
  // The position of the small one is acknowledged, which lies behind rows of the open one.
  const {rows} = await world.pg.query<{lsn: string}>('SELECT pg_current_wal_lsn()::text AS lsn');
  await until(async () => {
    const {rows: found} = await world.pg.query<{lsn: string}>(
      'SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1',
      [world.settings.FRESHET_SLOT],
    );
    return parseLsn(found[0]!.lsn) >= parseLsn(rows[0]!.lsn);
  });
  process.kill(first.pid, 'SIGKILL');
  t.is(await first.died(), 'SIGKILL');
  await open.query(`${insert(20_001, 25_000)}; COMMIT`);
  const second = keepRunning(t, world.environment, ['run']);
  await equal(t, world);
  t.deepEqual(await world.query('SELECT toInt32(count()) AS n FROM {an}.big'), [{n: 25_000}]);
  t.is(await second.stop(), 0);
});

for (const how of ['on', 'off']) {
  test(`a large transaction that was rolled back before it is read is nothing (streaming ${how})`, async t => {
    const world = await running(t, {FRESHET_PG_STREAMING: how});
    await world.stop();
    await world.pg.query(
      `BEGIN; ${insert(1, 10)}; SAVEPOINT s; ${insert(11, 20)}; RELEASE s; ${insert(21, 20_000)}; ROLLBACK`,
    );
    await world.pg.query(
      `BEGIN; ${insert(30_001, 30_010)}; SAVEPOINT s; ${insert(40_001, 60_000)}; ROLLBACK TO s; COMMIT`,
    );
    world.start();
    await world.pg.query(insert(70_001, 70_002));
    await equal(t, world);
    t.deepEqual(await world.query('SELECT toInt32(count()) AS n FROM {an}.big'), [{n: 12}]);
  });
}
