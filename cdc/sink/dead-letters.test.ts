import test, {type ExecutionContext} from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {kafkaClient} from '../kafka/client.ts';
import {deadLetterTopic, topicName} from '../kafka/topics.ts';
import {exitCode, verify} from '../reconcile/verify.ts';
import {freshet, keepRunning} from '../test-support/command-line.ts';
import {startProxy} from '../test-support/proxy.ts';
import {type Running, server, startPipeline, transport, type World} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {command} from './clickhouse.ts';

const DDL = 'CREATE TABLE t (id int PRIMARY KEY, n int, body text); CREATE TABLE other (id int PRIMARY KEY);';
const GOES_ON = {FRESHET_DEAD_LETTER_TABLES: 'public.t'};
const LETTERS = 'SELECT key, state FROM {cdc}._dead_letters FINAL ORDER BY version, key';
const PARKED = "SELECT table_name FROM {cdc}._tables FINAL WHERE state = 'parked'";

/** ClickHouse refuses rows of t with such a number, or takes them again. */
const refuseNegative = ({ch, settings}: World): Promise<void> =>
  command(
    ch,
    `ALTER TABLE ${settings.FRESHET_CLICKHOUSE_DATABASE}.public__t ADD CONSTRAINT positive CHECK n IS NULL OR n > 0`,
  );
const takeAll = ({ch, settings}: World): Promise<void> =>
  command(ch, `ALTER TABLE ${settings.FRESHET_CLICKHOUSE_DATABASE}.public__t DROP CONSTRAINT positive`);

async function same(t: ExecutionContext, world: Running): Promise<void> {
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  t.is(exitCode(verdicts), 0, JSON.stringify(verdicts.map(({table, verdict}) => [table, verdict])));
}

/** Resolves when a row of table `other` that is written now is there: whatever was sent before was handled. */
async function passed({pg, query}: Running, id: number): Promise<void> {
  await pg.query('INSERT INTO other VALUES ($1)', [id]);
  await until(async () => (await query(`SELECT id FROM {an}.other WHERE id = ${id}`)).length > 0);
}

test('S17 a table that goes on: what is refused is a dead letter, the rows beside it are there, and retry makes it whole', async t => {
  const world = await startPipeline(t, DDL, GOES_ON);
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  await pg.query(`INSERT INTO t SELECT i, CASE WHEN i IN (1, 77, 300) THEN -i ELSE i END, 'b' FROM generate_series(1, 300) i;
    UPDATE t SET n = -2 WHERE id = 2; UPDATE t SET body = 'c' WHERE id = 3`);
  await until(async () => (await query(LETTERS)).length === 4);
  const error = await t.throwsAsync(world.caughtUp(), {code: 'ch.rejected'});
  t.regex(error!.message, /^public\.t is incomplete: 4 dead letters \(.*positive/);
  const open = [1, 77, 300, 2].map(id => ({key: `{"id":${id}}`, state: 'open'}));
  t.deepEqual(await query(LETTERS), open);
  t.deepEqual(await query('SELECT count() AS rows, sum(n) AS sum FROM {an}.t'), [
    {rows: '297', sum: String((300 * 301) / 2 - 1 - 77 - 300)},
  ]);
  t.deepEqual(await query(PARKED), []);
  const status = await freshet(t, environment, ['status']);
  t.is(status.code, 1);
  t.regex(status.stdout, /^! public\.t has 4 dead letters .*\n {4}freshet dead-letter list public\.t;/m);
  const [verdict] = (await verify({client: world.ch, settings: world.settings})).filter(
    ({table}) => table === 'public.t',
  );
  t.like(verdict, {verdict: 'unsettled'});
  t.regex(verdict!.reason, /incomplete: 4 dead letters/);

  // What is newer than a letter stays when it is retried.
  await pg.query('UPDATE t SET n = 1000 WHERE id = 77; DELETE FROM t WHERE id = 300');
  await passed(world, 1);
  const early = await freshet(t, environment, ['dead-letter', 'retry', 'public.t']);
  t.is(early.code, 1);
  t.is(early.stdout.match(/^✗ public\.t .*positive/gm)?.length, 4, early.stdout);
  await takeAll(world);
  const retried = await freshet(t, environment, ['dead-letter', 'retry', 'public.*']);
  t.is(retried.code, 0, retried.stdout + retried.stderr);
  t.deepEqual(
    await query(LETTERS),
    open.map(letter => ({...letter, state: 'retried'})),
  );
  await same(t, world);
});

test('S17 dead letters keep the message as it came, and say where it stood', async t => {
  if (transport() === 'direct') return skip(t, 'there is no topic');
  const world = await startPipeline(t, DDL, GOES_ON);
  const {pg, query, settings, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  await pg.query("INSERT INTO t VALUES (1, 1, 'a'), (5, -5, 'poison 🌊')");
  await until(async () => (await query(LETTERS)).length === 1);
  const kafka = kafkaClient(settings, world.log);
  const read = async (topic: string) => {
    const consumer = kafka.consumer({groupId: `${settings.FRESHET_TOPIC_PREFIX}-${topic}`});
    t.teardown(() => consumer.disconnect());
    await consumer.connect();
    await consumer.subscribe({topics: [topic], fromBeginning: true});
    const found: {
      partition: number;
      offset: string;
      key: string;
      value: string;
      headers: Record<string, string>;
    }[] = [];
    await consumer.run({
      eachMessage: async ({partition, message: {offset, key, value, headers}}) => {
        const plain = Object.fromEntries(Object.entries(headers ?? {}).map(([k, v]) => [k, String(v)]));
        found.push({partition, offset, key: String(key), value: String(value), headers: plain});
      },
    });
    await until(() => found.some(({value}) => value.includes('poison')));
    return found.filter(({value}) => value.includes('poison'));
  };
  const [original] = await read(topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 't'));
  const [letter] = await read(deadLetterTopic(settings.FRESHET_TOPIC_PREFIX));
  t.is(letter!.key, original!.key);
  t.is(letter!.value, original!.value);
  t.like(letter!.headers, original!.headers);
  const {reason, version, ...facts} = Object.fromEntries(
    Object.entries(letter!.headers).flatMap(([name, value]) =>
      name.startsWith('freshet.dead.') ? [[name.slice('freshet.dead.'.length), value]] : [],
    ),
  );
  t.deepEqual(facts, {
    table: 'public.t',
    partition: String(original!.partition),
    offset: original!.offset,
    code: 'ch.rejected',
  });
  t.regex(reason!, /positive/);
  t.true(original!.headers['freshet.row']!.includes(`"${version}"`));
  const listed = await freshet(t, environment, ['dead-letter', 'list']);
  t.is(listed.code, 1);
  t.regex(
    listed.stdout,
    new RegExp(`public\\.t .*${original!.partition}/${original!.offset} .*"id":5.*positive`),
  );
});

test('S17 a table that is parked at a dead letter: others go on, retry takes it up while everything runs', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  await pg.query(
    `INSERT INTO t SELECT i, CASE WHEN i % 10 = 0 THEN -i ELSE i END, 'b' FROM generate_series(1, 50) i`,
  );
  await until(async () => (await query(PARKED)).length > 0);
  await passed(world, 1);
  await pg.query("INSERT INTO t VALUES (51, 51, 'behind'); UPDATE t SET body = 'x' WHERE id = 1");
  await passed(world, 2);
  t.deepEqual(
    (await query(LETTERS)).map(({state}) => state),
    ['open'],
  );
  const error = await t.throwsAsync(world.caughtUp(), {code: 'ch.rejected'});
  t.regex(error!.message, /^public\.t is parked: .*positive/);
  await takeAll(world);
  const retried = await freshet(t, environment, ['dead-letter', 'retry', 'public.t']);
  t.is(retried.code, 0, retried.stdout + retried.stderr);
  await until(async () => (await query(PARKED)).length === 0);
  await until(async () => (await query("SELECT id FROM {an}.t WHERE body = 'behind'")).length > 0);
  await same(t, world);
  t.deepEqual(await query("SELECT * FROM {cdc}._dead_letters FINAL WHERE state = 'open'"), []);
});

test('S17 a parked table goes on behind what was dropped', async t => {
  if (transport() === 'direct') return skip(t, 'there it is read again as a whole');
  const world = await startPipeline(t, DDL, {FRESHET_TOPIC_PARTITIONS: '2'});
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  await pg.query(
    `INSERT INTO t SELECT i, CASE WHEN i IN (10, 20) THEN -i ELSE i END, 'b' FROM generate_series(1, 50) i`,
  );
  for (const id of [10, 20]) {
    await until(async () => (await query(PARKED)).length > 0);
    const [letter] = await query("SELECT key FROM {cdc}._dead_letters FINAL WHERE state = 'open'");
    t.truthy(letter, String(id));
    t.is((await freshet(t, environment, ['dead-letter', 'drop', 'public.t'])).code, 0);
    t.deepEqual(await query(PARKED), []);
  }
  await world.caughtUp();
  t.deepEqual(await query('SELECT count() AS n FROM {an}.t'), [{n: '48'}]);
  // PostgreSQL has them still, which verify tells.
  const [verdict] = await verify({client: world.ch, settings: world.settings}).then(all =>
    all.filter(({table}) => table === 'public.t'),
  );
  t.like(verdict, {verdict: 'different', found: 2});
  // A restart meets them no more.
  await world.stop();
  world.start();
  await passed(world, 1);
  t.deepEqual(await query(PARKED), []);
});

test('S17 a large value that an update leaves alone is never filled in from before a dead letter', async t => {
  const world = await startPipeline(
    t,
    `${DDL} ALTER TABLE t ALTER body SET STORAGE EXTERNAL;
     INSERT INTO t SELECT i, i, repeat('old', 2000) FROM generate_series(1, 3) i`,
    GOES_ON,
  );
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  const bodies = 'SELECT id, n, substring(body, 1, 4) AS body FROM {an}.t ORDER BY id';
  // Behind it in the same batch, and later; of a key whose letter is dropped as well.
  await pg.query(`BEGIN; UPDATE t SET n = -1, body = repeat('new1', 2000) WHERE id = 1; UPDATE t SET n = 11 WHERE id = 1; COMMIT;
    UPDATE t SET n = -2, body = repeat('new2', 2000) WHERE id = 2; UPDATE t SET n = -3, body = repeat('new3', 2000) WHERE id = 3`);
  await until(async () => (await query(LETTERS)).length === 3);
  await pg.query('UPDATE t SET n = 12 WHERE id = 2');
  await passed(world, 1);
  await until(async () => (await query('SELECT id FROM {an}.t WHERE n = 12')).length > 0);
  t.deepEqual(await query(bodies), [
    {id: 1, n: 11, body: 'new1'},
    {id: 2, n: 12, body: 'new2'},
    {id: 3, n: 3, body: 'oldo'},
  ]);
  t.is((await freshet(t, environment, ['dead-letter', 'drop', 'public.t'])).code, 0);
  await pg.query('UPDATE t SET n = 13 WHERE id = 3');
  await world.caughtUp();
  t.deepEqual((await query(bodies)).at(-1), {id: 3, n: 13, body: 'new3'});
  await same(t, world);
});

test('S17 what is truncated or read again closes its dead letters, and a retry brings nothing back', async t => {
  const world = await startPipeline(t, DDL, GOES_ON);
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  await pg.query("INSERT INTO t VALUES (1, 1, 'a'), (2, -2, 'b')");
  await until(async () => (await query(LETTERS)).length === 1);
  await pg.query("TRUNCATE t; INSERT INTO t VALUES (3, 3, 'c')");
  await same(t, world);
  t.deepEqual(await query(LETTERS), [{key: '{"id":2}', state: 'superseded'}]);
  await pg.query("INSERT INTO t VALUES (4, -4, 'd')");
  await until(async () => (await query(LETTERS)).length === 2);
  const read = await freshet(t, environment, ['resync', 'public.t', '--wait']);
  t.is(read.code, 0, read.stdout + read.stderr);
  await same(t, world);
  t.deepEqual(
    (await query(LETTERS)).map(({state}) => state),
    ['superseded', 'superseded'],
  );
});

test('S17 a letter that is retried while a TRUNCATE is applied brings its row not back', async t => {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const world = await startPipeline(t, DDL, {
    ...GOES_ON,
    FRESHET_TOPIC_PARTITIONS: '1',
    FRESHET_CLICKHOUSE_URL: network.url,
  });
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  await pg.query("INSERT INTO t VALUES (1, 1, 'a'), (2, -2, 'b')");
  await until(async () => (await query(LETTERS)).length === 1);
  await takeAll(world);
  const superseding = network.on(/param_states=[^ ]*open%27%2C%27dropped/, 'hold');
  await pg.query('TRUNCATE t');
  await superseding.times(1);
  const past = {...environment, FRESHET_CLICKHOUSE_URL: server('TEST_CLICKHOUSE_URL')!};
  const retried = await freshet(t, past, ['dead-letter', 'retry', 'public.t']);
  t.is(retried.code, 0, retried.stdout + retried.stderr);
  superseding.release();
  await same(t, world);
  t.deepEqual(await query('SELECT id FROM {an}.t'), []);
  t.deepEqual(await query(LETTERS), [{key: '{"id":2}', state: 'retried'}]);
});

test('S17 a table is complete no further than its first dead letter, and goes on being so when that is retried', async t => {
  const world = await startPipeline(t, DDL, GOES_ON);
  const {pg, query, environment} = world;
  await world.caughtUp();
  await refuseNegative(world);
  const before = await pg.query<{lsn: string}>("SELECT pg_current_wal_lsn() - '0/0' AS lsn");
  await pg.query("INSERT INTO t VALUES (1, -1, 'a')");
  const after = await pg.query<{lsn: string}>("SELECT pg_current_wal_lsn() - '0/0' AS lsn");
  await until(async () => (await query(LETTERS)).length === 1);
  const positions = async (): Promise<Record<string, bigint>> =>
    Object.fromEntries(
      (await query('SELECT table_name, position FROM {cdc}._watermarks FINAL')).map(row => [
        row.table_name,
        BigInt(String(row.position)),
      ]),
    );
  await pg.query("INSERT INTO t VALUES (2, 2, 'b')");
  await until(async () => (await query('SELECT id FROM {an}.t')).length === 1);
  await until(async () => (await positions()).other! > BigInt(after.rows[0]!.lsn));
  const {t: frozen} = await positions();
  t.true(frozen! < BigInt(after.rows[0]!.lsn), `${frozen} ${before.rows[0]!.lsn} ${after.rows[0]!.lsn}`);
  await takeAll(world);
  t.is((await freshet(t, environment, ['dead-letter', 'retry', 'public.t'])).code, 0);
  await until(async () => (await positions()).t! > BigInt(after.rows[0]!.lsn));
  await same(t, world);
});

test('S17 a message that nobody can read is a dead letter with its own bytes', async t => {
  if (transport() === 'direct') return skip(t, 'there is no topic that somebody else could write to');
  const world = await startPipeline(t, DDL, GOES_ON);
  const {pg, query, settings, environment} = world;
  await world.caughtUp();
  const producer = kafkaClient(settings, world.log).producer();
  await producer.connect();
  t.teardown(() => producer.disconnect());
  const stray = {
    partition: 0,
    key: Buffer.from([0xff, 0]),
    value: Buffer.from([0xfe, 1, 2]),
    headers: {who: 'somebody'},
  };
  await producer.send({topic: topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 't'), messages: [stray]});
  await pg.query("INSERT INTO t SELECT i, i, 'a' FROM generate_series(1, 20) i");
  await until(async () => (await query(LETTERS)).length === 1);
  await until(async () => (await query('SELECT id FROM {an}.t')).length === 20);
  t.deepEqual(
    await query(
      'SELECT code, hex(base64Decode(message_key)) AS key, hex(base64Decode(message_value)) AS value, message_headers FROM {cdc}._dead_letters FINAL',
    ),
    [
      {
        code: 'kafka.bad_message',
        key: 'FF00',
        value: 'FE0102',
        message_headers: JSON.stringify({who: Buffer.from('somebody').toString('base64')}),
      },
    ],
  );
  t.is((await freshet(t, environment, ['dead-letter', 'retry', 'public.t'])).code, 1);
  const [{place} = {place: ''}] = await query(
    "SELECT concat(toString(topic_partition), '/', toString(topic_offset)) AS place FROM {cdc}._dead_letters FINAL",
  );
  const dropped = await freshet(t, environment, [
    'dead-letter',
    'drop',
    'public.t',
    '--place',
    String(place),
  ]);
  t.is(dropped.code, 0, dropped.stdout + dropped.stderr);
  await same(t, world);
});

for (const place of ['dead_letter.in_topic', 'dead_letter.written', 'sink.before_commit'] as const) {
  test(`S17 killed at ${place}: one dead letter each, and nothing else is lost`, async t => {
    if (place === 'sink.before_commit' && transport() === 'direct') return skip(t, 'offsets are Kafka’s');
    const world = await startPipeline(t, DDL, GOES_ON);
    const {pg, query, environment} = world;
    await world.caughtUp();
    await refuseNegative(world);
    await world.stop();
    await pg.query(
      "INSERT INTO t SELECT i, CASE WHEN i IN (7, 70) THEN -i ELSE i END, 'a' FROM generate_series(1, 100) i",
    );
    const doomed = keepRunning(t, {...environment, FRESHET_FAILPOINT: `${place}:1`}, ['run']);
    t.is(await doomed.died(), 'SIGKILL');
    world.start();
    await until(async () => (await query('SELECT id FROM {an}.t')).length === 98);
    await passed(world, 1);
    t.deepEqual(await query(LETTERS), [
      {key: '{"id":7}', state: 'open'},
      {key: '{"id":70}', state: 'open'},
    ]);
    await takeAll(world);
    t.is((await freshet(t, environment, ['dead-letter', 'retry', 'public.t'])).code, 0);
    await same(t, world);
  });
}
