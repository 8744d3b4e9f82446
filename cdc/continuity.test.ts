import {mkdtemp, readdir, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {Client} from 'pg';
import {skip} from '../scripts/stack/skip.ts';
import {CIRCUMSTANCES, type Found, whyAnew} from './continuity.ts';
import {run} from './pipeline.ts';
import {caughtUp} from './reconcile/position.ts';
import {loadSettings, type Settings} from './settings/settings.ts';
import {command} from './sink/clickhouse.ts';
import {type Lsn, parseLsn} from './source/lsn.ts';
import {readServerVersion} from './source/postgres.ts';
import {readSlot} from './source/slot.ts';
import {keepRunning} from './test-support/command-line.ts';
import {copyData, type OwnPostgres, signal, startPostgres} from './test-support/own-postgres.ts';
import {type Running, startPipeline, transport} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

/** It is restored and invalidated: the cases have it for themselves, one after the other. */
let server: OwnPostgres;
let copies: string;
const undo: (() => unknown)[] = [];
test.before(async () => {
  server = await startPostgres({teardown: step => undo.unshift(step)});
  copies = await mkdtemp(path.join(tmpdir(), 'freshet-copies-'));
  undo.unshift(() => rm(copies, {recursive: true, force: true}));
});
test.after.always(async () => {
  for (const step of undo) await step();
});

const DDL = `CREATE TABLE a (id int PRIMARY KEY, v int, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
  INSERT INTO a SELECT i, 0, repeat(md5(i::text), 200) FROM generate_series(1, 20) i`;
const ROWS = 'SELECT id, v, length(body)::int AS n FROM a ORDER BY id';

/** On a connection of its own: the server may have been another one before. */
async function asUser<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client(url);
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function same(
  t: ExecutionContext,
  {query, settings}: Pick<Running, 'query' | 'settings'>,
): Promise<void> {
  const {rows} = await asUser(settings.FRESHET_PG_URL, client => client.query(ROWS));
  t.deepEqual(await query('SELECT id, v, toInt32(length(body)) AS n FROM {an}.a ORDER BY id'), rows);
}

const snapshots = ({log}: Running): string[] => log.lines.filter(line => line.includes('reading a snapshot'));

/** Before the pipeline has noticed, what was complete up to the position of before seems to be complete. */
const readAgain = ({log}: Running): Promise<void> =>
  until(() => log.lines.filter(line => line.includes('the snapshot is complete')).length === 2);

/** Changes that are of no use to a stream that begins behind them. */
const GAP =
  'DELETE FROM a WHERE id % 5 = 0; UPDATE a SET v = v + 1 WHERE id % 2 = 0; INSERT INTO a VALUES (100, 1)';
const AFTER = 'UPDATE a SET v = v + 10 WHERE id % 3 = 0; UPDATE a SET id = id + 1000 WHERE id % 7 = 0';

/** What somebody does to the slot while nobody reads it, and what is told then. */
const SLOT: Readonly<Record<string, readonly [sql: readonly string[], told: RegExp]>> = {
  'it is dropped': [['SELECT pg_drop_replication_slot($1)'], /the replication slot is gone/],
  'it is dropped, and made again by hand': [
    ['SELECT pg_drop_replication_slot($1)', `SELECT pg_create_logical_replication_slot($1, 'pgoutput')`],
    /stands at \S+, and nothing behind \S+ was acknowledged: somebody made it anew/,
  ],
  'it is advanced': [
    ['SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())'],
    /somebody made it anew, advanced it or read from it/,
  ],
  'somebody reads from it': [
    [
      `SELECT count(*) FROM pg_logical_slot_get_binary_changes($1::text, NULL, NULL, 'proto_version', '1', 'publication_names', $1::text)`,
    ],
    /somebody made it anew, advanced it or read from it/,
  ],
};
for (const [what, [statements, told]] of Object.entries(SLOT)) {
  test.serial(`the slot while the pipeline is away: ${what}`, async t => {
    const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url});
    const {pg, settings, stop, start} = world;
    await world.caughtUp();
    await pg.query('UPDATE a SET v = 5 WHERE id < 4');
    await world.caughtUp();
    await stop();
    await pg.query(GAP);
    for (const sql of statements) await pg.query(sql, [settings.FRESHET_SLOT]);
    await pg.query(AFTER);
    start();
    await readAgain(world);
    await world.caughtUp();
    t.regex(snapshots(world).at(-1)!, told);
    await same(t, world);
  });
}

/** More WAL than a slot may keep, or a longer pause than it is allowed. */
const INVALIDATED: Readonly<
  Record<string, readonly [since: number, settings: Record<string, string>, told: RegExp]>
> = {
  wal_removed: [
    140_000,
    {max_slot_wal_keep_size: '20MB'},
    /WAL that it needed was removed: raise max_slot_wal/,
  ],
  idle_timeout: [
    180_000,
    {idle_replication_slot_timeout: '1s'},
    /nobody read it for idle_replication_slot_timeout/,
  ],
};
for (const [reason, [since, settings, told]] of Object.entries(INVALIDATED)) {
  test.serial(`the slot is invalidated: ${reason}`, async t => {
    await server.restart({});
    if ((await asUser(server.url, readServerVersion)) < since) {
      skip(t, `PostgreSQL ${since / 10_000} is needed`);
      return;
    }
    await server.restart(settings);
    const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url});
    await world.caughtUp();
    await world.stop();
    await world.pg.query(GAP);
    await until(async () => {
      await world.pg.query("SELECT pg_logical_emit_message(false, 'fill', '')");
      await world.pg.query('SELECT pg_switch_wal()');
      await world.pg.query('CHECKPOINT');
      return (await readSlot(world.pg, world.settings.FRESHET_SLOT))?.walStatus === 'lost';
    });
    await server.restart({}, undefined); // with the limits of before it would be lost again
    world.start();
    await readAgain(world);
    await world.caughtUp();
    t.regex(snapshots(world).at(-1)!, told);
    await same(t, world);
  });
}

/** The pipeline runs, a copy of the server is kept, and more happens than the copy knows. */
async function restoredWorld(t: ExecutionContext): Promise<Running & {readonly copy: string}> {
  await server.restart({});
  const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url});
  const {settings} = world;
  const copy = path.join(copies, settings.FRESHET_SLOT);
  await asUser(settings.FRESHET_PG_URL, client => client.query('UPDATE a SET v = 1'));
  await world.caughtUp();
  await world.stop();
  await server.restart({}, data => copyData(data, copy));
  world.start();
  // Rows that the copy has not, and that are to go again.
  await asUser(settings.FRESHET_PG_URL, client =>
    client.query(`${GAP}; INSERT INTO a VALUES (7777, 7, 'ghost')`),
  );
  await world.caughtUp();
  await same(t, world);
  await world.stop();
  // One that has nothing to send says again up to where all is acknowledged.
  const written = async (): Promise<unknown> =>
    (await world.query('SELECT max(version) AS version FROM {cdc}._acknowledged'))[0]!.version;
  const before = await written();
  world.start();
  await until(async () => (await written()) !== before);
  await world.stop();
  return {...world, copy};
}

test.serial('the server is restored from a copy: what it does not have any more goes', async t => {
  const world = await restoredWorld(t);
  await server.restart({}, data => copyData(world.copy, data));
  world.start();
  await readAgain(world);
  await world.caughtUp();
  t.regex(
    snapshots(world).at(-1)!,
    /the server's WAL ends at \S+, before \S+, up to where it was read: it was restored/,
  );
  await same(t, world);
  await asUser(world.settings.FRESHET_PG_URL, client => client.query(AFTER));
  await world.caughtUp();
  await same(t, world);
});

test.serial(
  'the server is restored, and has written past where it stood before: its other past shows',
  async t => {
    const world = await restoredWorld(t);
    const {settings} = world;
    await server.restart({}, data => copyData(world.copy, data));
    await asUser(settings.FRESHET_PG_URL, async client => {
      await client.query('UPDATE a SET v = 77; DELETE FROM a WHERE id < 4');
      for (let i = 0; i < 3; i++) {
        await client.query('SELECT pg_switch_wal()');
        await client.query("SELECT pg_logical_emit_message(true, 'somebody', 'else')");
      }
    });
    world.start();
    await until(() => world.log.lines.some(line => line.includes('"pg.other_history"')));
    await world.caughtUp();
    await same(t, world);
  },
);

test.serial('the server is restored to another timeline', async t => {
  const world = await restoredWorld(t);
  await server.restart({restore_command: 'false'}, async data => {
    await copyData(world.copy, data);
    await signal(data, 'recovery.signal');
  });
  await asUser(world.settings.FRESHET_PG_URL, async client => {
    await until(async () => !(await client.query('SELECT pg_is_in_recovery() AS r')).rows[0].r);
    await client.query(AFTER);
  });
  world.start();
  await readAgain(world);
  await world.caughtUp();
  t.regex(
    snapshots(world).at(-1)!,
    /the source is on timeline \d+ now, not \d+: it was promoted or restored/,
  );
  await same(t, world);
});

/** A server that has never heard of the pipeline, with a table of the same name; gives the settings that lead to it. */
async function another(t: ExecutionContext, settings: Settings): Promise<Settings> {
  const other = await startPostgres(t);
  const url = new URL(settings.FRESHET_PG_URL);
  url.port = new URL(other.url).port;
  await asUser(other.url, client => client.query(`CREATE DATABASE ${settings.FRESHET_SLOT}`));
  await asUser(url.href, client => client.query(`${DDL}; ${GAP}`));
  return {...settings, FRESHET_PG_URL: url.href};
}

async function readFrom(t: ExecutionContext, world: Running, settings: Settings): Promise<void> {
  const stopper = new AbortController();
  const running = run({settings, log: world.log, signal: stopper.signal});
  t.teardown(() => {
    stopper.abort();
    return running;
  });
  await readAgain(world);
  await caughtUp(world.ch, settings, 60_000);
  t.regex(snapshots(world).at(-1)!, /the source is another server \(system identifier \d+, not \d+\)/);
  await same(t, {query: world.query, settings});
}

test.serial('another server behind the same settings', async t => {
  await server.restart({});
  const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url});
  await world.caughtUp();
  await world.stop();
  await readFrom(t, world, await another(t, world.settings));
});

test.serial(
  'another server that is not as far in its transactions as what still lies in the topics',
  async t => {
    if (transport() === 'direct') return skip(t, 'there are no topics');
    await server.restart({});
    const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url});
    const {pg, environment, settings} = world;
    await world.caughtUp();
    await world.stop();
    await pg.query(
      'DO $$ BEGIN FOR i IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$',
    );
    const capture = keepRunning(t, environment, ['capture']);
    await capture.logged('streaming');
    await pg.query('UPDATE a SET id = id + 1000 WHERE id <= 10'); // only PostgreSQL has the values under these keys
    const {rows} = await pg.query<{lsn: string}>('SELECT pg_current_wal_lsn() AS lsn');
    await until(async () => {
      const sql = 'SELECT confirmed_flush_lsn >= $1 AS passed FROM pg_replication_slots WHERE slot_name = $2';
      return (await pg.query(sql, [rows[0]!.lsn, settings.FRESHET_SLOT])).rows[0].passed;
    });
    t.is(await capture.stop(), 0, capture.log());
    await readFrom(t, world, await another(t, settings));
  },
);

test.serial(
  'server and pipeline are killed again and again: that is no reason to read anything again',
  async t => {
    await server.restart({});
    const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url});
    await world.caughtUp();
    await world.stop();
    const {settings, environment, ch} = world;
    const read = snapshots(world).length;
    for (let round = 0; round < 4; round++) {
      const child = keepRunning(t, environment, ['run']);
      await child.logged('streaming');
      await asUser(settings.FRESHET_PG_URL, async client => {
        for (let i = 0; i < 40; i++) await client.query(`UPDATE a SET v = v + 1 WHERE id % 4 = ${i % 4}`);
      });
      if (round % 2 === 0) await caughtUp(ch, settings);
      process.kill(child.pid, 'SIGKILL');
      await child.died();
      t.notRegex(child.log(), /reading a snapshot/);
      // The server forgets what was acknowledged since its last checkpoint.
      await server.restart({}, async () => {});
    }
    world.start();
    await world.caughtUp();
    t.is(snapshots(world).length, read);
    await same(t, world);
  },
);

/** A standby of the server, which keeps the slot too. */
test.serial('a standby with the failover slot is promoted: the stream goes on without a resync', async t => {
  await server.restart({});
  if ((await asUser(server.url, readServerVersion)) < 170_000) {
    skip(t, 'PostgreSQL 17 is needed');
    return;
  }
  await asUser(server.url, client => client.query(`SELECT pg_create_physical_replication_slot('standby')`));
  const world = await startPipeline(t, DDL, {FRESHET_PG_URL: server.url, FRESHET_SLOT_FAILOVER: 'false'});
  await world.caughtUp();
  await world.stop();
  const read = snapshots(world).length;
  const copy = path.join(copies, 'standby');
  const primary = {synchronized_standby_slots: 'standby'};
  await server.restart(primary, data => copyData(data, copy));
  const source = new URL(server.url);
  const standby = await startPostgres(
    t,
    {
      primary_conninfo: `host=127.0.0.1 port=${source.port} user=postgres password=postgres dbname=postgres`,
      primary_slot_name: 'standby',
      hot_standby_feedback: 'on',
      sync_replication_slots: 'on',
    },
    async data => {
      await copyData(copy, data);
      // A base backup has no slots; one of the same name would not be replaced by the primary's.
      const slots = path.join(data, 'pg_replslot');
      for (const slot of await readdir(slots)) await rm(path.join(slots, slot), {recursive: true});
      await signal(data, 'standby.signal');
    },
  );
  const settings = loadSettings({...world.environment, FRESHET_SLOT_FAILOVER: 'true'});
  let stopper = new AbortController();
  let running = run({settings, log: world.log, signal: stopper.signal});
  await asUser(settings.FRESHET_PG_URL, client => client.query(GAP));
  await caughtUp(world.ch, settings);
  await until(async () => {
    // The standby keeps it for good once the slot of the primary has gone past where its own began.
    await asUser(settings.FRESHET_PG_URL, client =>
      client.query('SELECT pg_log_standby_snapshot(); UPDATE a SET v = v + 1 WHERE id = 100'),
    );
    return asUser(standby.url, async client => {
      const {rows} = await client.query(
        'SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary',
        [settings.FRESHET_SLOT],
      );
      return rows.length === 1;
    });
  });
  await asUser(settings.FRESHET_PG_URL, client => client.query(AFTER));
  await caughtUp(world.ch, settings);
  stopper.abort();
  await running;
  await asUser(standby.url, client => client.query('SELECT pg_promote()'));
  const url = new URL(settings.FRESHET_PG_URL);
  url.port = new URL(standby.url).port;
  const promoted: Settings = {...settings, FRESHET_PG_URL: url.href};
  await asUser(url.href, client =>
    client.query('UPDATE a SET v = 500 WHERE id % 2 = 1; DELETE FROM a WHERE id = 1'),
  );
  stopper = new AbortController();
  running = run({settings: promoted, log: world.log, signal: stopper.signal});
  await caughtUp(world.ch, promoted);
  await same(t, {query: world.query, settings: promoted});
  t.is(snapshots(world).length, read, world.log.lines.join('\n'));
  t.true(world.log.lines.some(line => line.includes('its failover slot goes on where it stood')));
  stopper.abort();
  await running;
});

test('another slot, and the first one again: what they read outranks all that was stored, whatever epoch that is of', async t => {
  const world = await startPipeline(t, DDL);
  await world.caughtUp();
  await world.stop();
  // As if another server had been read until now.
  const known = `${world.settings.FRESHET_CLICKHOUSE_DATABASE}._source`;
  await command(
    world.ch,
    `INSERT INTO ${known} SELECT * REPLACE ('1' AS system_identifier, now64(6) AS updated_at) FROM ${known} FINAL`,
  );
  world.start();
  await readAgain(world);
  await world.caughtUp();
  await world.stop();
  const other = loadSettings({...world.environment, FRESHET_SLOT: `${world.settings.FRESHET_SLOT}_b`});
  for (const settings of [other, world.settings]) {
    await world.pg.query(GAP);
    const stopper = new AbortController();
    const ended = run({settings, log: world.log, signal: stopper.signal});
    try {
      await caughtUp(world.ch, settings);
      await world.pg.query(AFTER);
      await caughtUp(world.ch, settings);
      await same(t, world);
    } finally {
      stopper.abort();
      await ended;
    }
    await world.pg.query('DELETE FROM a WHERE id >= 100');
  }
  t.deepEqual(await world.query('SELECT pipeline, epoch FROM {cdc}._source FINAL ORDER BY pipeline'), [
    {pipeline: world.settings.FRESHET_SLOT, epoch: 3},
    {pipeline: other.FRESHET_SLOT, epoch: 2},
  ]);
});

const FOUND: Found = {
  before: {
    system_identifier: '1',
    timeline: 1,
    transport: 'kafka x',
    epoch: 2,
    consistent_point: '100',
    snapshot_done: 1,
  },
  acknowledged: {epoch: 2, position: 200n as Lsn, last: undefined, failover: false, cluster: 'k'},
  server: {systemIdentifier: '1', timeline: 1, position: 300n as Lsn},
  transport: 'kafka x',
  cluster: 'k',
  highest: 2,
  slot: {
    active: false,
    activePid: null,
    walStatus: 'reserved',
    confirmedFlush: '0/C8',
    retainedBytes: null,
    safeBytes: null,
    invalidationReason: null,
    failover: false,
  },
};

test('what is as it was goes on; positions of an earlier epoch say nothing', t => {
  t.is(whyAnew(FOUND), undefined);
  t.is(parseLsn('0/C8'), 200n as Lsn);
  const slot = {...FOUND.slot!, confirmedFlush: '0/C9'};
  t.is(whyAnew({...FOUND, slot})?.row, 'a slot ahead of us');
  const acknowledged = {...FOUND.acknowledged!, epoch: 1};
  t.is(whyAnew({...FOUND, slot, acknowledged}), undefined);
  t.is(whyAnew({...FOUND, server: {...FOUND.server, position: 150n as Lsn}, acknowledged}), undefined);
  t.is(
    whyAnew({...FOUND, server: {...FOUND.server, position: 99n as Lsn}, acknowledged})?.row,
    'a server behind us',
  );
});

test('every reason for which a slot is invalidated is told, with what keeps it from happening again', t => {
  for (const [reason, words] of Object.entries({
    wal_removed: 'max_slot_wal_keep_size',
    rows_removed: 'while the server was a standby',
    wal_level_insufficient: 'wal_level',
    idle_timeout: 'idle_replication_slot_timeout',
    a_new_one: 'a_new_one',
  })) {
    const slot = {...FOUND.slot!, walStatus: 'lost', invalidationReason: reason};
    t.true(whyAnew({...FOUND, slot})?.why.includes(words));
  }
  t.true(
    whyAnew({...FOUND, slot: {...FOUND.slot!, walStatus: 'lost'}})?.why.includes('max_slot_wal_keep_size'),
  );
  t.is(Object.keys(CIRCUMSTANCES).length, 9);
});
