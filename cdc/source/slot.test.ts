import test from 'ava';
import {run} from '../pipeline.ts';
import {caughtUp as visible} from '../reconcile/position.ts';
import {makeWorld, type Running, startPipeline} from '../test-support/start-pipeline.ts';
import {parseLsn} from './lsn.ts';
import {clientConfig} from './postgres.ts';
import {ReplicationConnection} from './replication-connection.ts';
import {readSlot} from './slot.ts';

const DDL = 'CREATE TABLE s (id int PRIMARY KEY, v int)';
const sums = async ({pg, query}: Running): Promise<[unknown, unknown]> => [
  await query('SELECT toInt32(count()) AS n, toInt32(sum(v)) AS v FROM {an}.s'),
  (await pg.query('SELECT count(*)::int AS n, coalesce(sum(v), 0)::int AS v FROM s')).rows,
];

/** Asks again until the answer is yes; the test's own time limit ends it. */
async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await new Promise(resolve => setTimeout(resolve, 50));
}

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
