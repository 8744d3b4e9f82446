import test from 'ava';
import {run} from '../pipeline.ts';
import {caughtUp as visible} from '../reconcile/position.ts';
import {startProxy} from '../test-support/proxy.ts';
import {makeWorld, type Running, server, startPipeline} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {commitLsnOf, parseLsn} from './lsn.ts';
import {clientConfig} from './postgres.ts';
import {ReplicationConnection} from './replication-connection.ts';
import {readSlot} from './slot.ts';

const DDL = 'CREATE TABLE s (id int PRIMARY KEY, v int)';
const sums = async ({pg, query}: Running): Promise<[unknown, unknown]> => [
  await query('SELECT toInt32(count()) AS n, toInt32(sum(v)) AS v FROM {an}.s'),
  (await pg.query('SELECT count(*)::int AS n, coalesce(sum(v), 0)::int AS v FROM s')).rows,
];

/** The LSN of each change that the slot would send now. */
const waiting = async ({pg, settings}: Running): Promise<string[]> => {
  await until(async () => !(await readSlot(pg, settings.FRESHET_SLOT))!.active); // the walsender may still be ending
  const {rows} = await pg.query<{lsn: string}>(
    `SELECT lsn::text FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)
     WHERE get_byte(data, 0) = ascii('I')`,
    [settings.FRESHET_SLOT, settings.FRESHET_PUBLICATION],
  );
  return rows.map(({lsn}) => lsn);
};

test('S4 a transaction begins where the acknowledged one ends: it is not skipped', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, settings, caughtUp, stop, start} = world;
  await caughtUp();
  let touching = 0;
  for (let id = 1; id <= 20 && touching < 2; id++) {
    await stop();
    await pg.query(`INSERT INTO s VALUES (${id}, ${id})`);
    const [first] = await waiting(world);
    const {confirmedFlush} = (await readSlot(pg, settings.FRESHET_SLOT))!;
    if (first === confirmedFlush) touching += 1; // nothing of another database came between
    start();
    await caughtUp();
  }
  t.log(`${touching} transactions began at the position that was acknowledged`);
  t.deepEqual(...(await sums(world)));
});

test('S5 over reconnects no position is acknowledged that is before one the server has', async t => {
  const network = await startProxy(t, server('TEST_PG_URL')!);
  /** Flushed positions in the order they were sent; 0 says nothing. */
  const flushed: bigint[] = [];
  network.watch(piece => {
    // CopyData of 38 bytes with a standby status update in it.
    for (let at = piece.indexOf('d\0\0\0&r'); at >= 0; at = piece.indexOf('d\0\0\0&r', at + 1)) {
      if (at + 39 <= piece.length) flushed.push(piece.readBigUInt64BE(at + 14));
    }
  });
  const world = await startPipeline(t, DDL, {FRESHET_PG_URL: network.url});
  const {pg, caughtUp, settings} = world;
  await caughtUp();
  const told = (): bigint[] => flushed.filter(position => position > 0n);
  for (let round = 0; round < 3 || told().length < 6; round++) {
    await pg.query(`INSERT INTO s SELECT ${round} * 100 + n, n FROM generate_series(1, 50) n`);
    await caughtUp(); // so that something is acknowledged on each connection
    await pg.query('UPDATE s SET v = v + 1');
    await pg.query(
      'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active',
      [settings.FRESHET_SLOT],
    );
    await caughtUp();
  }
  const last = parseLsn((await readSlot(pg, settings.FRESHET_SLOT))!.confirmedFlush!);
  for (const [i, position] of told().entries()) t.true(position >= (told()[i - 1] ?? 0n), told().join(' '));
  t.true(last >= told()[0]!);
  t.deepEqual(...(await sums(world)));
});

test('S8 the sink is blocked for longer than wal_sender_timeout: the connection stays, and nothing is lost', async t => {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  // In one process without Kafka nothing stands between the sink and the slot.
  const world = await startPipeline(t, `${DDL}; ALTER TABLE s ADD filler text`, {
    FRESHET_TRANSPORT: 'direct',
    FRESHET_CLICKHOUSE_URL: network.url,
    FRESHET_BATCH_BYTES: String(1 << 19),
    FRESHET_BUFFER_BYTES: String(1 << 20),
  });
  const {pg, caughtUp, settings, stop, start} = world;
  await caughtUp();
  await stop();
  await pg.query(`ALTER DATABASE ${settings.FRESHET_SLOT} SET wal_sender_timeout = '3s'`);
  start();
  await caughtUp();
  const held = network.on(/query=INSERT[^ ]*public__s%60/, 'hold');
  // More than fits into all buffers, so that reading stops, and keepalives are not seen.
  await pg.query(`INSERT INTO s SELECT n, n, repeat(md5(n::text), 300) FROM generate_series(1, 1500) n`);
  await held.times(1);
  const walsender = async () =>
    (
      await pg.query<{pid: number; at: string | null}>(
        `SELECT pid, extract(epoch FROM reply_time)::text AS at FROM pg_stat_replication WHERE pid =
           (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1)`,
        [settings.FRESHET_SLOT],
      )
    ).rows[0];
  await until(async () => (await walsender())?.at !== null); // it has replied before
  const before = (await walsender())!;
  await until(async () => {
    const now = await walsender();
    return now === undefined || Number(now.at) > Number(before.at) + 7;
  });
  t.is((await walsender())?.pid, before.pid, world.log.lines.join('\n'));
  const confirmed = parseLsn((await readSlot(pg, settings.FRESHET_SLOT))!.confirmedFlush!);
  held.release();
  await caughtUp();
  t.deepEqual(...(await sums(world)));
  const [row] = await world.query('SELECT toString(max(_version)) AS version FROM {cdc}.public__s');
  const commit = commitLsnOf(BigInt(String(row!.version)));
  t.true(confirmed <= commit, `${confirmed} was acknowledged; the blocked rows committed at ${commit}`);
});

test('an idle database beside a busy one holds no WAL back, and nothing is written to it', async t => {
  const {pg, caughtUp, settings} = await startPipeline(t, DDL);
  await caughtUp();
  const {pg: busy} = await makeWorld(t, 'CREATE TABLE other (id bigserial PRIMARY KEY, v text)');
  const {rows} = await pg.query<{lsn: string}>('SELECT pg_current_wal_lsn()::text AS lsn');
  const before = parseLsn(rows[0]!.lsn);
  const kept = 'SELECT restart_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = $1';
  await until(async () => {
    // A checkpoint writes down what runs: from there on a slot can keep less.
    await busy.query("INSERT INTO other (v) SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    await busy.query('CHECKPOINT');
    return parseLsn((await pg.query(kept, [settings.FRESHET_SLOT])).rows[0]!.lsn) > before;
  });
  const tables = 'SELECT relname AS name, n_tup_ins::int AS written FROM pg_stat_user_tables';
  t.deepEqual((await pg.query(tables)).rows, [{name: 's', written: 0}]);
});

test('S7 a message outside of any transaction is the last event before a restart', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, caughtUp, stop, start, settings} = world;
  await pg.query('INSERT INTO s VALUES (1, 1)');
  await caughtUp();
  const {rows} = await pg.query<{lsn: string}>(
    "SELECT pg_logical_emit_message(false, 'somebody', 'else')::text AS lsn",
  );
  await stop();
  start();
  // It is passed, and the slot with it: nothing keeps sending it.
  await until(
    async () =>
      parseLsn((await readSlot(pg, settings.FRESHET_SLOT))?.confirmedFlush ?? '0/0') >=
      parseLsn(rows[0]!.lsn),
  );
  await pg.query(`BEGIN; INSERT INTO s VALUES (2, 2); SELECT pg_logical_emit_message(false, 'in', 'between');
    INSERT INTO s VALUES (3, 3); COMMIT`);
  await caughtUp();
  t.deepEqual(...(await sums(world)));
});

test('S9 a second process waits for the slot, and takes over', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, caughtUp, settings, log, stop} = world;
  await pg.query('INSERT INTO s VALUES (1, 1)');
  await caughtUp();
  const stopper = new AbortController();
  const second = run({settings, log, signal: stopper.signal}).then(
    () => null,
    error => error as unknown,
  );
  t.teardown(async () => {
    stopper.abort();
    await second;
  });
  await until(() => log.lines.some(line => line.startsWith('warn') && line.includes('"pg.slot_active"')));
  await pg.query('INSERT INTO s VALUES (2, 2)');
  await caughtUp();
  await stop();
  await pg.query('INSERT INTO s VALUES (3, 3)');
  await visible(world.ch, settings);
  t.deepEqual(...(await sums(world)));
  stopper.abort();
  t.is(await second, null);
});

test('S9 S16 walsenders are terminated under load, and nothing is lost', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, caughtUp, settings, log} = world;
  await caughtUp();
  let terminated = 0;
  for (let i = 0; i < 600; i++) {
    await pg.query('INSERT INTO s SELECT $1 * 10 + n, n FROM generate_series(1, 10) n', [i]);
    if (i % 3 === 0) await pg.query('UPDATE s SET v = v + 1 WHERE id % 100 = $1', [i % 100]);
    if (i % 100 === 50) {
      const {rows} = await pg.query(
        'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active',
        [settings.FRESHET_SLOT],
      );
      terminated += rows.length;
    }
  }
  await caughtUp();
  t.true(terminated > 0);
  t.true(log.lines.some(line => line.startsWith('warn') && line.includes('"pg.unavailable"')));
  t.deepEqual(...(await sums(world)));
});

test('S15 a stop that comes before the stream ends it in good order', async t => {
  const {settings} = await makeWorld(t, '');
  const connection = await ReplicationConnection.connect(clientConfig(settings));
  await connection.stream({
    slot: settings.FRESHET_SLOT,
    publication: settings.FRESHET_PUBLICATION,
    signal: AbortSignal.abort(),
    onData: () => {},
    onKeepalive: () => {},
  });
  connection.close(); // what rejects from here on is nobody's, and would end the process
  await connection.identify().catch(() => {});
  t.pass();
});
