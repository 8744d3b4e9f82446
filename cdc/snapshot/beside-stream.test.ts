import test, {type ExecutionContext} from 'ava';
import {verify} from '../reconcile/verify.ts';
import {keepRunning} from '../test-support/command-line.ts';
import {startProxy} from '../test-support/proxy.ts';
import {makeWorld, server, startPipeline, transport, type World} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';

const DDL = `CREATE TABLE a (id int PRIMARY KEY, v int, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
  INSERT INTO a SELECT i, 0, CASE WHEN i % 50 = 0 THEN repeat(md5(i::text), 100) ELSE md5(i::text) END FROM generate_series(1, 9000) i; ANALYZE`;

/** Rows come, go, change and move, on both sides of what was read. */
async function change({pg}: World, round: number): Promise<void> {
  await pg.query(`UPDATE a SET v = v + 1 WHERE id % 7 = ${round}; DELETE FROM a WHERE id % 11 = ${round}`);
  await pg.query(`UPDATE a SET id = -id WHERE id > 0 AND id % 13 = ${round}`);
  await pg.query(`INSERT INTO a SELECT 100000 * ${round} + i, 1, 'new' FROM generate_series(1, 300) i`);
}

/** Runs until a chunk of the reading that `ask` brings about is about to be written down. */
async function killedWhileReading(
  t: ExecutionContext,
  environment: Readonly<Record<string, string>>,
  {chunk, ask}: {chunk: number; ask?: () => Promise<unknown>},
): Promise<void> {
  const place = {FRESHET_FAILPOINT: `snapshot.before_chunk_done:${chunk}`};
  const child = keepRunning(t, {...environment, ...place}, ['run']);
  await child.logged('streaming');
  await ask?.();
  t.is(await child.died(), 'SIGKILL', child.log());
}

const ways = transport() === 'kafka' ? ['clickhouse', 'kafka'] : ['clickhouse'];
for (const via of ways) {
  test(`a table read beside the stream, killed twice: it goes on where it stood, by way of ${via}`, async t => {
    const world = await makeWorld(t, DDL);
    const {pg, query, caughtUp, ch, settings} = world;
    const environment = {
      ...world.environment,
      FRESHET_SNAPSHOT_CHUNK_BYTES: '65536',
      FRESHET_SNAPSHOT_VIA: via,
    };
    const first = keepRunning(t, environment, ['run']);
    await caughtUp();
    t.is(await first.stop(), 0, first.log());
    await query('TRUNCATE TABLE {cdc}._snapshot_chunks');
    const ask = (): Promise<unknown> => pg.query('ALTER TABLE a ALTER v TYPE bigint USING v + 1');
    await killedWhileReading(t, environment, {chunk: 4, ask});
    await change(world, 4);
    await killedWhileReading(t, environment, {chunk: 3});
    await change(world, 5);
    const last = keepRunning(t, environment, ['run']);
    await caughtUp();
    const [verdict] = await verify({client: ch, settings});
    t.like(verdict, {table: 'public.a', verdict: 'equal', differences: []});
    t.regex(last.log(), /going on with public\.a: 5 of \d+ chunks were read/);
    const twice = 'SELECT chunk FROM {cdc}._snapshot_chunks GROUP BY chunk HAVING count() > 1';
    t.deepEqual(await query(twice), []);
    t.deepEqual(
      await query(
        'SELECT uniqExact(point) AS n, uniqExact(read_at_point) AS points FROM {cdc}._snapshot_chunks',
      ),
      [{n: '1', points: '3'}],
    );
    const generation = 'SELECT max(generation) AS g FROM {cdc}._schema_changes';
    t.deepEqual(await query(generation), [{g: 2}]);
    t.is(await last.stop(), 0, last.log());
  });
}

for (const [what, sql] of Object.entries({
  'its rows were moved': 'VACUUM FULL a',
  'it was emptied': 'TRUNCATE a; INSERT INTO a SELECT i, 7 FROM generate_series(1, 2000) i',
  'it has another column': "ALTER TABLE a ADD COLUMN w text DEFAULT 'w'",
  'it has another key': 'ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (v, id)',
  'it is another table':
    'DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, $$new$$); ALTER PUBLICATION {publication} ADD TABLE a',
})) {
  test(`a table read beside the stream, killed, and when the pipeline starts again ${what}: it is read anew`, async t => {
    const world = await makeWorld(t, DDL);
    const {pg, caughtUp, ch, settings} = world;
    const environment = {...world.environment, FRESHET_SNAPSHOT_CHUNK_BYTES: '65536'};
    const first = keepRunning(t, environment, ['run']);
    await caughtUp();
    t.is(await first.stop(), 0, first.log());
    const ask = (): Promise<unknown> => pg.query('ALTER TABLE a ALTER v TYPE bigint USING v + 1');
    await killedWhileReading(t, environment, {chunk: 4, ask});
    await pg.query('DELETE FROM a WHERE id % 2 = 0');
    const own = sql.replace('{publication}', settings.FRESHET_PUBLICATION);
    for (const statement of own.split('; ')) await pg.query(statement);
    const last = keepRunning(t, environment, ['run']);
    await caughtUp();
    const [verdict] = await verify({client: ch, settings});
    t.like(verdict, {table: 'public.a', verdict: 'equal', differences: []});
    t.is(await last.stop(), 0, last.log());
  });
}

test('R10b a table read beside the stream, whose rows come late, when its lock is gone and it was emptied: they are not there', async t => {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const world = await startPipeline(
    t,
    'CREATE TABLE a (id int PRIMARY KEY, v int, tags text[]); INSERT INTO a SELECT i, i FROM generate_series(1, 100) i',
    {FRESHET_CLICKHOUSE_URL: network.url},
  );
  const {pg, query, caughtUp, ch, settings} = world;
  await caughtUp();
  const held = network.on(/query=INSERT[^ ]*public__a__2%60/, 'hold', 1);
  await pg.query('ALTER TABLE a ALTER v TYPE bigint USING v + 1');
  await held.times(1);
  const {rowCount} = await pg.query(
    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'a'::regclass AND mode = 'AccessShareLock' AND pid <> pg_backend_pid()",
  );
  t.truthy(rowCount);
  await pg.query('TRUNCATE a');
  await pg.query('INSERT INTO a VALUES (1000, 1)');
  await until(async () => (await query('SELECT id FROM {cdc}.public__a__2 FINAL')).length > 0);
  held.release();
  await caughtUp();
  const [verdict] = await verify({client: ch, settings});
  t.like(verdict, {table: 'public.a', verdict: 'equal', differences: []});
});
