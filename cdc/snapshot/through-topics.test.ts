import test from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {verify} from '../reconcile/verify.ts';
import {keepRunning} from '../test-support/command-line.ts';
import {startProxy} from '../test-support/proxy.ts';
import {
  makeWorld,
  type Running,
  server,
  startPipeline,
  transport,
  type World,
} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';

const THROUGH_TOPICS = {FRESHET_SNAPSHOT_VIA: 'kafka', FRESHET_TOPIC_PARTITIONS: '3'};

async function verdicts({ch, settings}: World): Promise<unknown[]> {
  const found = await verify({client: ch, settings});
  return found.map(({table, verdict, differences}) => ({table, verdict, differences}));
}
const equal = (...tables: string[]): unknown[] =>
  tables.map(table => ({table: `public.${table}`, verdict: 'equal', differences: []}));

test('a table that is read again through the topics takes the place of the old one when all of it is visible', async t => {
  if (transport() === 'direct') return skip(t, 'there are no topics');
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const world: Running = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, v int, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
     INSERT INTO a SELECT i, i, repeat(md5(i::text), 300) FROM generate_series(1, 300) i`,
    {...THROUGH_TOPICS, FRESHET_CLICKHOUSE_URL: network.url},
  );
  const {pg, query, caughtUp} = world;
  await caughtUp();
  const held = network.on(/query=INSERT[^ ]*public__a__2%60/, 'hold');
  await pg.query('ALTER TABLE a ALTER v TYPE text USING (v + 1)::text');
  await pg.query(
    'UPDATE a SET v = v || 0 WHERE id < 9; UPDATE a SET id = -id WHERE id = 20; DELETE FROM a WHERE id = 30',
  );
  await held.times(1);
  // All of it is in the topic, and capture has gone on: readers see what was there before.
  t.deepEqual(await query('SELECT toInt32(sum(v)) AS v FROM {an}.a'), [{v: 45_150}]);
  held.release();
  await until(async () => (await query('SELECT v FROM {an}.a WHERE id = 1'))[0]?.v === '20');
  await caughtUp();
  t.deepEqual(await verdicts(world), equal('a'));
});

test('all tables are read again through the topics: what is gone meanwhile is gone, in every partition', async t => {
  if (transport() === 'direct') return skip(t, 'there are no topics');
  const world = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, v int, d date); INSERT INTO a SELECT i, i, 'infinity' FROM generate_series(1, 2000) i;
     CREATE TABLE empty (id int PRIMARY KEY)`,
    THROUGH_TOPICS,
  );
  const {pg, query, settings, caughtUp, stop, start} = world;
  await caughtUp();
  t.deepEqual(await query('SELECT toInt32(count()) AS n FROM {cdc}._rejects'), [{n: 2000}]);
  await stop();
  await pg.query('SELECT pg_drop_replication_slot($1)', [settings.FRESHET_SLOT]);
  await pg.query('DELETE FROM a WHERE id % 2 = 0; UPDATE a SET v = -v WHERE id % 3 = 0');
  start();
  await caughtUp();
  t.deepEqual(await verdicts(world), equal('a', 'empty'));
});

test('killed three times on its way through the topics: it goes on, and no chunk that Kafka has is read again', async t => {
  if (transport() === 'direct') return skip(t, 'there are no topics');
  const world = await makeWorld(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, v int, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
     INSERT INTO a SELECT i, 0, CASE WHEN i % 50 = 0 THEN repeat(md5(i::text), 100) ELSE md5(i::text) END FROM generate_series(1, 9000) i;
     CREATE TABLE b (id int PRIMARY KEY, v text[]); INSERT INTO b SELECT i, ARRAY[md5(i::text)] FROM generate_series(1, 4000) i; ANALYZE`,
    THROUGH_TOPICS,
  );
  const {pg, query, caughtUp} = world;
  const environment = {...world.environment, FRESHET_SNAPSHOT_CHUNK_BYTES: '65536'};
  for (const count of [4, 5, 6]) {
    const place = {FRESHET_FAILPOINT: `snapshot.before_chunk_done:${count}`};
    const child = keepRunning(t, {...environment, ...place}, ['run']);
    t.is(await child.died(), 'SIGKILL', child.log());
    await pg.query(`UPDATE a SET v = v + 1 WHERE id % 7 = ${count}; DELETE FROM a WHERE id % 11 = ${count}`);
    await pg.query(
      `UPDATE a SET id = -id WHERE id > 0 AND id % 13 = ${count}; DELETE FROM b WHERE id % 5 = ${count}`,
    );
  }
  const last = keepRunning(t, environment, ['run']);
  await caughtUp();
  t.deepEqual(await verdicts(world), equal('a', 'b'));
  t.deepEqual(
    await query(
      'SELECT oid, chunk FROM {cdc}._snapshot_chunks GROUP BY point, oid, chunk HAVING count() > 1',
    ),
    [],
  );
  t.is(await last.stop(), 0, last.log());
});
