import test, {type ExecutionContext} from 'ava';
import {Client} from 'pg';
import {ALERTS} from '../dashboards/alerts.ts';
import {type SlotSample, watchSlot} from './observe/slot-guard.ts';
import {run} from './pipeline.ts';
import {clientConfig} from './source/postgres.ts';
import {ReplicationConnection} from './source/replication-connection.ts';
import {createSlot, readSlot} from './source/slot.ts';
import {type OwnPostgres, startPostgres} from './test-support/own-postgres.ts';
import {startProxy} from './test-support/proxy.ts';
import {server as clickhouseUrl, makeWorld, startPipeline} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

/** What would hold up every other test: each case has this server for itself, with its own settings. */
let server: OwnPostgres;
const undo: (() => unknown)[] = [];
test.before(async () => {
  server = await startPostgres({teardown: step => undo.unshift(step)});
});
test.after.always(async () => {
  for (const step of undo) await step();
});

async function session(t: ExecutionContext, url: string): Promise<Client> {
  const client = new Client(url);
  client.on('error', () => {});
  await client.connect();
  t.teardown(() => client.end().catch(() => {}));
  return client;
}

test.serial(
  'N6 a transaction that is open and idle keeps the slot from being made: its pid is named',
  async t => {
    const {settings, pg} = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY)', {
      FRESHET_PG_URL: server.url,
    });
    const idle = await session(t, settings.FRESHET_PG_URL);
    await idle.query('BEGIN; INSERT INTO a VALUES (1)');
    const {rows} = await idle.query<{pid: number}>('SELECT pg_backend_pid() AS pid');
    const connection = await ReplicationConnection.connect(clientConfig(settings));
    t.teardown(() => connection.close());
    const error = await t.throwsAsync(createSlot(pg, connection, settings.FRESHET_SLOT, 500));
    t.like(error, {code: 'pg.slot_blocked', reaction: 'retry'});
    t.true(error!.message.includes(`pid ${rows[0]!.pid} (postgres, open for 00:00:0`), error!.message);
    // Nothing half made is left, so it can be tried again.
    await until(async () => (await readSlot(pg, settings.FRESHET_SLOT)) === undefined);
    await idle.query('COMMIT');
    const again = await ReplicationConnection.connect(clientConfig(settings));
    t.teardown(() => again.close());
    await createSlot(pg, again, settings.FRESHET_SLOT);
    t.false((await readSlot(pg, settings.FRESHET_SLOT))!.active);
  },
);

test.serial('R7c a key change that synchronous replication still hides keeps its large value', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, n int, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
     INSERT INTO a SELECT i, i, repeat(md5(i::text), 300) FROM generate_series(1, 500) i`,
    {FRESHET_PG_URL: server.url},
  );
  const {pg, settings, log, query} = world;
  await world.caughtUp();
  // A standby that never answers: what commits is in the log, and streamed, but not visible to others.
  const other = await session(t, settings.FRESHET_PG_URL);
  await pg.query(`ALTER SYSTEM SET synchronous_standby_names = 'nobody'`);
  await pg.query('SELECT pg_reload_conf(); SET synchronous_commit = local');
  t.teardown(() =>
    pg.query('ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()').catch(() => {}),
  );
  const {rows} = await other.query<{pid: number}>('SELECT pg_backend_pid() AS pid');
  const activity = 'SELECT wait_event FROM pg_stat_activity WHERE pid = $1';
  const waits = async (): Promise<boolean> =>
    (await pg.query(activity, [rows[0]!.pid])).rows[0].wait_event === 'SyncRep';
  // The server takes a moment to know of its standby, and until then lets commits through.
  let hidden: Promise<unknown> = Promise.resolve();
  for (let id = 1; !(await waits()); id++) {
    hidden = other.query(`UPDATE a SET id = -id WHERE id = ${id}; UPDATE a SET n = 20 WHERE id = -${id}`);
    await Promise.race([hidden, until(waits)]);
  }
  await until(() => log.lines.some(line => line.startsWith('warn') && line.includes('not visible yet')));
  await pg.query('UPDATE a SET n = 30 WHERE id = 500');
  await pg.query('ALTER SYSTEM RESET synchronous_standby_names');
  await pg.query('SELECT pg_reload_conf()');
  await hidden;
  await world.caughtUp();
  t.deepEqual(
    await query('SELECT id, n, hex(MD5(assumeNotNull(body))) AS body FROM {an}.a ORDER BY id'),
    (await pg.query('SELECT id, n, upper(md5(body)) AS body FROM a ORDER BY id')).rows,
  );
});

/** More WAL than a slot may keep: each switch begins a segment of 16 MB. */
async function loseSlot(pg: Client, slot: string): Promise<void> {
  await until(async () => {
    await pg.query("SELECT pg_logical_emit_message(false, 'fill', ''); SELECT pg_switch_wal(); CHECKPOINT");
    return (await readSlot(pg, slot))?.walStatus === 'lost';
  });
}

test.serial(
  'S11 max_slot_wal_keep_size is exceeded while the pipeline is away: told, and read again',
  async t => {
    await server.restart({max_slot_wal_keep_size: '20MB'});
    const ddl =
      'CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a SELECT i, 0 FROM generate_series(1, 9) i';
    const world = await startPipeline(t, ddl, {FRESHET_PG_URL: server.url});
    const {pg, settings, log, query, stop, start} = world;
    await world.caughtUp();
    await stop();
    await pg.query(
      'DELETE FROM a WHERE id < 4; UPDATE a SET v = 1 WHERE id < 6; INSERT INTO a VALUES (10, 10)',
    );
    await loseSlot(pg, settings.FRESHET_SLOT);
    start();
    await until(() => log.lines.some(line => line.includes('WAL that it needed was removed')));
    await world.caughtUp();
    t.deepEqual(
      await query('SELECT id, v FROM {an}.a ORDER BY id'),
      (await pg.query('SELECT * FROM a ORDER BY id')).rows,
    );
  },
);

test.serial(
  'S11 max_slot_wal_keep_size is exceeded during the snapshot: told, and read once more',
  async t => {
    await server.restart({max_slot_wal_keep_size: '20MB'});
    const network = await startProxy(t, clickhouseUrl('TEST_CLICKHOUSE_URL')!);
    const held = network.on(/query=INSERT[^ ]*public__a%60/, 'hold');
    const ddl =
      'CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a SELECT i, 0 FROM generate_series(1, 9) i';
    const world = await startPipeline(t, ddl, {
      FRESHET_PG_URL: server.url,
      FRESHET_CLICKHOUSE_URL: network.url,
    });
    const {pg, settings, log, query} = world;
    await held.times(1);
    await pg.query('DELETE FROM a WHERE id < 4; UPDATE a SET v = 1 WHERE id < 6');
    await loseSlot(pg, settings.FRESHET_SLOT);
    held.release();
    await world.caughtUp();
    t.true(log.lines.some(line => line.startsWith('error') && line.includes('"pg.slot_lost"')));
    t.is(log.lines.filter(line => line.includes('reading a snapshot')).length, 2);
    t.deepEqual(
      await query('SELECT id, v FROM {an}.a ORDER BY id'),
      (await pg.query('SELECT * FROM a ORDER BY id')).rows,
    );
  },
);

test.serial('S11 the slot guard tells when the slot will be lost, and the alarm rings before', async t => {
  // Autovacuum writes WAL too, at times of its own: with checksums each page that it marks goes there whole.
  const sizes = {max_slot_wal_keep_size: '192MB', max_wal_size: '64MB', min_wal_size: '32MB'};
  await server.restart({...sizes, autovacuum: 'off'});
  const network = await startProxy(t, clickhouseUrl('TEST_CLICKHOUSE_URL')!);
  const world = await startPipeline(
    t,
    'CREATE TABLE a (id bigserial PRIMARY KEY, v text); ALTER TABLE a ALTER v SET STORAGE EXTERNAL',
    {FRESHET_PG_URL: server.url, FRESHET_CLICKHOUSE_URL: network.url, FRESHET_TRANSPORT: 'direct'},
  );
  const {pg, settings} = world;
  await world.caughtUp();
  const alarm = ALERTS.find(({uid}) => uid === 'freshet-slot-at-risk')!.query;
  const rings = async (): Promise<boolean> => {
    const [row] = await world.query(alarm.replaceAll('ecommerce_analytics.', '{an}.'));
    return Number(row!.slots) > 0;
  };
  // Nobody who has looked rings too. And the guard reckons from its first look on, which must not come behind what is
  // written now.
  await until(async () => Number((await world.query('SELECT count() AS n FROM {cdc}._slot'))[0]!.n) > 0);
  t.false(await rings());
  // The sink stands still: nothing more is acknowledged.
  const held = network.on(/query=INSERT[^ ]*public__a%60/, 'hold');
  const write = () => pg.query("INSERT INTO a (v) SELECT repeat('x', 1 << 20) FROM generate_series(1, 4)");
  await write();
  await held.times(1);
  // The clock of the samples is the test's own: four MiB are one second, however slow the machine is.
  const samples: SlotSample[] = [];
  let foretold: {at: number; seconds: number} | undefined;
  let second = 0;
  for (let level = 'good'; level !== 'lost'; second++) {
    await write();
    // What is too old goes with a checkpoint, and those come by the size of WAL.
    if (second % 8 === 0) await pg.query('CHECKPOINT');
    const health = (await watchSlot(settings, samples, second * 1000))!;
    ({level} = health);
    if (foretold || (health.share ?? 0) < 0.5) continue;
    foretold = {at: second, seconds: health.secondsToLoss ?? Number.POSITIVE_INFINITY};
    t.is(level, 'critical');
    await until(rings);
    t.not((await readSlot(pg, settings.FRESHET_SLOT))?.walStatus, 'lost');
  }
  const took = second - 1 - foretold!.at;
  t.log(`foretold ${foretold!.seconds.toFixed(1)} s, and it took ${took}`);
  t.true(took > foretold!.seconds / 2 && took < foretold!.seconds * 2);
  held.release();
});

test.serial('O3 a pipeline that runs already waits where all walsenders are taken', async t => {
  await server.restart({max_wal_senders: '2'});
  const world = await startPipeline(t, 'CREATE TABLE a (id int PRIMARY KEY)', {FRESHET_PG_URL: server.url});
  const {pg, settings, log, query, stop, start} = world;
  await world.caughtUp();
  await stop();
  const taken = [];
  for (let i = 0; i < 2; i++) taken.push(await ReplicationConnection.connect(clientConfig(settings)));
  await pg.query('INSERT INTO a VALUES (1)');
  start();
  const refused = /max_wal_senders|all walsenders are taken/;
  const ended = world.ended().then(String);
  await Promise.race([until(() => log.lines.some(line => refused.test(line))), ended]);
  for (const connection of taken) connection.close();
  await world.caughtUp();
  t.deepEqual(await query('SELECT id FROM {an}.a'), [{id: 1}]);
});

/** What the server must have, and what is said where it has not. */
const LACKS: Readonly<Record<string, readonly [settings: Record<string, string>, says: RegExp]>> = {
  'wal_level = replica': [
    {wal_level: 'replica'},
    /✗ wal_level is replica; logical replication needs logical\n +ALTER SYSTEM/,
  ],
  'no walsender is free': [
    {max_wal_senders: '0'},
    /✗ all walsenders are taken\n +ALTER SYSTEM SET max_wal_senders = 20;/,
  ],
  'no slot is free': [{max_replication_slots: '0'}, /✗ all replication slots are taken\n +ALTER SYSTEM/],
};
for (const [what, [settings, says]] of Object.entries(LACKS)) {
  test.serial(`O3 ${what}: refused at the start, before anything is changed`, async t => {
    await server.restart(settings);
    const world = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY)', {FRESHET_PG_URL: server.url});
    const {log, pg} = world;
    const error = await t.throwsAsync(
      run({settings: world.settings, log, signal: new AbortController().signal}),
    );
    t.like(error, {code: 'pg.preflight', reaction: 'halt'});
    t.regex(error!.message, says);
    const {rows} = await pg.query(
      'SELECT (SELECT count(*) FROM pg_publication)::int AS publications, (SELECT count(*) FROM pg_replication_slots)::int AS slots',
    );
    t.deepEqual(rows, [{publications: 0, slots: 0}]);
  });
}
