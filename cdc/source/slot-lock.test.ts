import test, {type ExecutionContext} from 'ava';
import {run} from '../pipeline.ts';
import {verify} from '../reconcile/verify.ts';
import {loadSettings} from '../settings/settings.ts';
import {keepRunning} from '../test-support/command-line.ts';
import {startProxy} from '../test-support/proxy.ts';
import {makeWorld, server, type World} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {readSlot} from './slot.ts';

/** Two pipelines by the same slot: what the first one sends to ClickHouse can be held. */
async function makeTwo(t: ExecutionContext, sql: string) {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const world = await makeWorld(t, sql);
  /** Ends when it is told to, or the test ends. */
  const start = (settings = world.settings): (() => Promise<void>) => {
    const stopper = new AbortController();
    const ended = run({settings, log: world.log, signal: stopper.signal});
    ended.catch(() => {});
    const stop = async (): Promise<void> => {
      stopper.abort();
      await ended;
    };
    t.teardown(() => stop().catch(() => {}));
    return stop;
  };
  const first = start(loadSettings({...world.environment, FRESHET_CLICKHOUSE_URL: network.url}));
  return {...world, network, first, start};
}

/** It says that it waits, or streams (which it must not). */
const hasTried = ({log: {lines}}: World, streaming: number): Promise<void> =>
  until(
    () =>
      lines.some(line => line.includes('"pg.slot_active"')) ||
      lines.filter(line => line.startsWith('info streaming')).length > streaming,
  );

async function equal(t: ExecutionContext, world: World): Promise<void> {
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  t.deepEqual([...new Set(verdicts.map(({verdict}) => verdict))], ['equal']);
}

test('S9 a second process does not touch the slot that a first snapshot is going to be read by', async t => {
  const world = await makeTwo(
    t,
    'CREATE TABLE s (id int PRIMARY KEY, v int); INSERT INTO s SELECT i, i FROM generate_series(1, 100) i',
  );
  const {pg, settings, network, first, start} = world;
  // The slot is made, and where it began is not written down yet.
  const held = network.on(/query=INSERT[^ ]*_snapshots%60/, 'hold');
  await held.times(1);
  const {confirmedFlush} = (await readSlot(pg, settings.FRESHET_SLOT))!;
  await pg.query('UPDATE s SET v = -v WHERE id % 2 = 0; DELETE FROM s WHERE id % 3 = 0');
  start();
  await hasTried(world, 0);
  t.is((await readSlot(pg, settings.FRESHET_SLOT))?.confirmedFlush, confirmedFlush);
  held.release();
  await equal(t, world);
  await first();
  await pg.query('INSERT INTO s VALUES (1000, 1)');
  await equal(t, world);
});

test('S9 a process that waits for the slot begins no readings of its own', async t => {
  const world = await makeTwo(
    t,
    'CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, v int)',
  );
  const {pg, query, network, first, start} = world;
  await world.caughtUp();
  await pg.query('INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1)');
  const held = network.on(/query=INSERT[^ ]*public__[ab]__2%60/, 'hold');
  await pg.query(
    'ALTER TABLE a ALTER v TYPE bigint USING v + 1; ALTER TABLE b ALTER v TYPE bigint USING v + 1',
  );
  await held.times(1);
  start();
  await hasTried(world, 1);
  held.release();
  await equal(t, world);
  await first();
  await pg.query('INSERT INTO a VALUES (2, 2); INSERT INTO b VALUES (2, 2)');
  await equal(t, world);
  t.deepEqual(
    await query(
      'SELECT table_name AS t, max(generation) AS g FROM {cdc}._schema_changes FINAL GROUP BY t ORDER BY t',
    ),
    [
      {t: 'a', g: 2},
      {t: 'b', g: 2},
    ],
  );
});

test('S9 a process that hangs loses the slot to one that waits, as soon as its walsender would', async t => {
  const world = await makeWorld(t, 'CREATE TABLE s (id int PRIMARY KEY, v int)');
  const {pg, settings, environment} = world;
  await pg.query(`ALTER DATABASE ${settings.FRESHET_SLOT} SET wal_sender_timeout = '3s'`);
  const first = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  const second = keepRunning(t, environment, ['run']);
  await second.logged('pg.slot_active');
  process.kill(first.pid, 'SIGSTOP');
  await pg.query('INSERT INTO s VALUES (1, 1)');
  await equal(t, world);
  process.kill(first.pid, 'SIGCONT');
  await first.logged('pg.unavailable');
  await pg.query('INSERT INTO s VALUES (2, 2)');
  await equal(t, world);
  t.is(await second.stop(), 0, second.log());
});

test('S9 without the connection that holds the slot the stage ends, and begins again', async t => {
  const {pg, settings, log, caughtUp} = await makeTwo(t, 'CREATE TABLE s (id int PRIMARY KEY, v int)');
  await caughtUp();
  const {rowCount} = await pg.query(
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
  );
  t.is(rowCount, 1);
  await until(() => log.lines.some(line => line.includes(`held slot ${settings.FRESHET_SLOT} is gone`)));
  await pg.query('INSERT INTO s VALUES (1, 1)');
  await caughtUp();
  t.is(log.lines.filter(line => line.startsWith('info streaming')).length, 2);
});
