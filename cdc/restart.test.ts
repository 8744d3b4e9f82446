import {readFile} from 'node:fs/promises';
import test from 'ava';
import {Client} from 'pg';
import {skip} from '../scripts/stack/skip.ts';
import {keepRunning} from './test-support/command-line.ts';
import {makeWorld, transport, type World} from './test-support/start-pipeline.ts';

/** Rows and what they add up to, on both sides. */
async function sums({pg, query}: World, table: string): Promise<[unknown, unknown]> {
  return [
    await query(
      `SELECT toInt32(count()) AS n, toString(sum(id)) AS ids, toString(sum(v)) AS vs FROM {an}.${table}`,
    ),
    (await pg.query(`SELECT count(*)::int AS n, sum(id)::text AS ids, sum(v)::text AS vs FROM ${table}`))
      .rows,
  ];
}

/** Ids that have more than one version: rows that were not the same at their replay. */
const TWICE = 'SELECT id FROM {cdc}.public__a GROUP BY id HAVING uniqExact(_version) > 1';

test('S2 killed in the middle of a transaction, as its rows are sent: it goes on without a gap', async t => {
  if (transport() === 'direct') return skip(t, 'the place is passed with Kafka alone');
  const world = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY, v int, filler text)', {
    FRESHET_BATCH_BYTES: '65536',
  });
  const {pg, query, environment} = world;
  const before = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  t.is(await before.stop(), 0);
  // 50 rows of 10 kB are eight batches: the horizons are not sent again, so the third has rows 13 to 18.
  await pg.query(`INSERT INTO a SELECT i, i, repeat('x', 10000) FROM generate_series(1, 50) i`);
  const killed = keepRunning(t, {...environment, FRESHET_FAILPOINT: 'kafka.after_send:3'}, ['run']);
  t.is(await killed.died(), 'SIGKILL');
  const last = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  t.deepEqual(...(await sums(world, 'a')));
  t.deepEqual(await query(TWICE), []);
  t.deepEqual(
    await query(
      'SELECT DISTINCT toInt32(toInt32(_version % 65536) - 2 * id) AS ordinal FROM {cdc}.public__a',
    ),
    [{ordinal: 0}],
  );
  t.is(await last.stop(), 0, last.log());
});

test('S13 killed when all is durable, but not yet acknowledged: the replay is not seen', async t => {
  const world = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a VALUES (0, 0)');
  const {pg, query, environment} = world;
  // Acknowledgments go out each second: the slot is behind by what was made durable since the last one.
  const killed = keepRunning(t, {...environment, FRESHET_FAILPOINT: 'capture.before_ack:4'}, ['run']);
  let died = false;
  const dying = killed.died().finally(() => {
    died = true;
  });
  await killed.logged('streaming');
  for (let id = 1; !died; id++) {
    await pg.query(
      `INSERT INTO a VALUES (${id}, 0); UPDATE a SET v = v + 1 WHERE id <= ${id} AND id > ${id} - 3`,
    );
  }
  t.is(await dying, 'SIGKILL');
  const last = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  t.deepEqual(...(await sums(world, 'a')));
  t.deepEqual(
    await query(
      'SELECT toInt32(count()) AS n FROM (SELECT _version, id FROM {cdc}.public__a GROUP BY _version, id HAVING uniqExact(v) > 1)',
    ),
    [{n: 0}],
  );
  t.is(await last.stop(), 0, last.log());
});

const ROWS = Number(process.env.FRESHET_TEST_LARGE_ROWS ?? 60_000);

test('S12 large transactions, three of them interleaved, with savepoints that are rolled back: memory stays bounded', async t => {
  const world = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY, v int, filler text)', {
    FRESHET_BATCH_BYTES: String(1 << 20),
    FRESHET_BUFFER_BYTES: String(4 << 20),
  });
  const {pg, query, environment, settings} = world;
  const child = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  const fill = (from: number, count: number, v: number): string =>
    `INSERT INTO a SELECT i, ${v}, repeat(md5(i::text), 20) FROM generate_series(${from}, ${from + count - 1}) i`;
  const [before] = await memory(child.pid);
  const patience = 120_000 + ROWS;
  await pg.query(fill(1, ROWS, 1));
  // A row of each in turn, and large parts that never were.
  const clients = await Promise.all(
    [1, 2, 3].map(async () => {
      const client = new Client(settings.FRESHET_PG_URL);
      await client.connect();
      await client.query('BEGIN');
      t.teardown(() => client.end());
      return client;
    }),
  );
  const part = Math.floor(ROWS / 12);
  for (let round = 0; round < 4; round++) {
    for (const [i, client] of clients.entries()) {
      const from = (i + 1) * 10_000_000 + round * part * 2;
      await client.query(
        `${fill(from, part, i)}; SAVEPOINT s; ${fill(from + part, part, 100)}; UPDATE a SET v = 100 WHERE id = ${from}`,
      );
      await client.query('ROLLBACK TO s');
    }
  }
  await Promise.all(clients.map((client, i) => client.query(i === 1 ? 'ROLLBACK' : 'COMMIT')));
  await world.caughtUp(patience);
  t.deepEqual(...(await sums(world, 'a')));
  t.deepEqual(await query('SELECT id FROM {cdc}.public__a WHERE v = 100'), []);
  const [now, most] = await memory(child.pid);
  t.log(`${ROWS} rows a transaction; resident ${before} MB before, ${now} MB after, ${most} MB at most`);
  // 300,000 rows are 500 MB of envelopes, and took no more than 450 MB where 60,000 took 400: FRESHET_TEST_LARGE_ROWS.
  if (most !== undefined) t.true(most < 700, `${most} MB`);
  t.is(await child.stop(), 0, child.log());
});

/** MB resident now and at most, where the system tells. */
async function memory(pid: number): Promise<(number | undefined)[]> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return ['VmRSS', 'VmHWM'].map(name => {
    const found = new RegExp(`${name}:\\s+(\\d+) kB`).exec(status);
    return found ? Math.round(Number(found[1]) / 1024) : undefined;
  });
}
