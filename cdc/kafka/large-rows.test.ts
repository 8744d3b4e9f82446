import test from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {freshet} from '../test-support/command-line.ts';
import {startPipeline, transport} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {kafkaClient} from './client.ts';
import {topicName} from './topics.ts';

const MiB = 1 << 20;
const DIGEST =
  'SELECT id, n, length(body) AS bytes, hex(MD5(assumeNotNull(body))) AS md5 FROM {an}.a ORDER BY id';
const PG_DIGEST = 'SELECT id, n, length(body)::text AS bytes, upper(md5(body)) AS md5 FROM a ORDER BY id';
const DDL = 'CREATE TABLE a (id int PRIMARY KEY, n int, body text, price numeric(9,2))';

test('R14 rows of 1, 16 and 64 MiB are stored, and following rows go on', async t => {
  const {pg, query, caughtUp} = await startPipeline(t, DDL);
  await caughtUp();
  for (const [id, mebibytes] of [1, 16, 64].entries()) {
    await pg.query(`INSERT INTO a VALUES (${id}, 0, repeat('0123456789abcdef', ${mebibytes * MiB} / 16))`);
  }
  await pg.query(`UPDATE a SET n = 1; INSERT INTO a VALUES (9, 9, 'small')`);
  await caughtUp();
  t.deepEqual(await query(DIGEST), (await pg.query(PG_DIGEST)).rows);
});

test('R14 a row that its topic cannot take by any means is a dead letter, following rows go on, and retry stores it', async t => {
  if (transport() === 'direct') return skip(t, 'the limit is Kafka’s');
  const world = await startPipeline(t, 'CREATE TABLE k (id text PRIMARY KEY, n int)', {
    FRESHET_DEAD_LETTER_TABLES: 'public.k',
  });
  const {pg, query, settings, environment} = world;
  await world.caughtUp();
  await world.stop();
  // A key compresses in PostgreSQL's index, and not in a topic.
  const admin = kafkaClient(settings, world.log).admin();
  await admin.connect();
  await admin.alterConfigs({
    validateOnly: false,
    resources: [
      {
        type: 2, // a topic
        name: topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'k'),
        configEntries: [{name: 'max.message.bytes', value: '20000'}],
      },
    ],
  });
  await admin.disconnect();
  world.start();
  await pg.query("INSERT INTO k VALUES ('a', 1), (repeat('x', 40000), 2), ('b', 3)");
  const short = 'SELECT left(id, 1) AS id, n FROM {an}.k ORDER BY n';
  await until(async () => (await query(short)).length === 2);
  t.deepEqual(await query('SELECT code, state FROM {cdc}._dead_letters FINAL'), [
    {code: 'kafka.message_too_large', state: 'open'},
  ]);
  t.is((await freshet(t, environment, ['dead-letter', 'retry', 'public.k'])).code, 0);
  await world.caughtUp();
  t.deepEqual(await query(short), [
    {id: 'a', n: 1},
    {id: 'x', n: 2},
    {id: 'b', n: 3},
  ]);
});

for (const identity of ['DEFAULT', 'FULL']) {
  test(`R14 rows above what the topic takes, and batches above it, identity ${identity}`, async t => {
    if (transport() === 'direct') return skip(t, 'the limit is Kafka’s');
    const {pg, query, caughtUp, log} = await startPipeline(
      t,
      `${DDL}; ALTER TABLE a REPLICA IDENTITY ${identity}`,
      {
        FRESHET_MESSAGE_MAX_BYTES: String(MiB),
        FRESHET_TOPIC_PARTITIONS: '2',
      },
    );
    await caughtUp();
    // Together far more than a request may have, each row less.
    await pg.query(`INSERT INTO a SELECT i, 0, repeat(md5(i::text), 10000) FROM generate_series(1, 30) i`);
    await pg.query(
      `INSERT INTO a SELECT i, 0, repeat(md5(i::text), 100000), 'NaN' FROM generate_series(101, 104) i`,
    );
    await pg.query(`UPDATE a SET n = 1 WHERE id > 100; UPDATE a SET body = body || 'x' WHERE id = 102`);
    await pg.query('UPDATE a SET id = id + 100 WHERE id = 103; DELETE FROM a WHERE id IN (1, 104)');
    await caughtUp();
    t.deepEqual(await query(DIGEST), (await pg.query(PG_DIGEST)).rows);
    t.deepEqual(
      log.lines.filter(line => line.includes('too_large')),
      [],
    );
  });
}
