import test from 'ava';
import kafkajs, {type Kafka, type KafkaMessage} from 'kafkajs';
import {z} from 'zod';
import {skip} from '../../scripts/stack/skip.ts';
import {server, startPipeline} from '../test-support/start-pipeline.ts';
import {partitionOf} from './message.ts';
import {topicName} from './topics.ts';

const Position = z.number().int().positive();
/** Debezium's envelope with schemas off, as readers of its topics take it. */
const Envelope = z.object({
  before: z.record(z.string(), z.unknown()).nullable(),
  after: z.record(z.string(), z.unknown()).nullable(),
  source: z.object({
    version: z.string(),
    connector: z.literal('postgresql'),
    name: z.string(),
    ts_ms: Position,
    snapshot: z.enum(['true', 'false']),
    db: z.string(),
    sequence: z.string().transform(text => z.tuple([z.null(), z.string()]).parse(JSON.parse(text))),
    schema: z.string(),
    table: z.string(),
    txId: z.number().int().nonnegative(),
    lsn: Position,
    xmin: z.null(),
  }),
  op: z.enum(['c', 'u', 'd', 't', 'r']),
  ts_ms: Position,
  transaction: z.null(),
});
type Envelope = z.infer<typeof Envelope>;

interface Read extends Envelope {
  readonly partition: number;
  readonly key: string | null;
  readonly raw: string;
}

/** All messages that the topic holds now, by partition, with a plain consumer. */
async function readTopic(kafka: Kafka, topic: string): Promise<(KafkaMessage & {partition: number})[]> {
  const admin = kafka.admin();
  await admin.connect();
  const left = new Map(
    (await admin.fetchTopicOffsets(topic))
      .filter(({low, high}) => low !== high)
      .map(({partition, high}) => [partition, BigInt(high)]),
  );
  await admin.disconnect();
  const consumer = kafka.consumer({groupId: `${topic}-reader`});
  const found: (KafkaMessage & {partition: number})[] = [];
  const {promise, resolve} = Promise.withResolvers<void>();
  await consumer.connect();
  await consumer.subscribe({topic, fromBeginning: true});
  await consumer.run({
    eachMessage: async ({partition, message}) => {
      found.push({...message, partition});
      if (BigInt(message.offset) + 1n >= (left.get(partition) ?? 0n)) left.delete(partition);
      if (left.size === 0) resolve();
    },
  });
  await promise;
  await consumer.disconnect();
  return found;
}

/** The changes in a topic, in the order of the log. */
async function readEvents(brokers: string, topic: string): Promise<Read[]> {
  const kafka = new kafkajs.Kafka({brokers: brokers.split(','), logLevel: kafkajs.logLevel.NOTHING});
  const messages = await readTopic(kafka, topic);
  const events: Read[] = messages.flatMap(({value, key, partition}) => {
    const raw = String(value);
    // The end of the snapshot is told by a message that is no change.
    if (z.object({op: z.string()}).parse(JSON.parse(raw)).op === 'm') return [];
    return [{...Envelope.parse(JSON.parse(raw)), key: key?.toString('utf8') ?? null, raw, partition}];
  });
  // Partitions have no order among them; positions in the log do.
  const half = ({op, partition}: Read): number => (op === 'd' ? -1 : partition);
  return events.sort((a, b) => a.source.lsn - b.source.lsn || half(a) - half(b));
}

const NASTY = `"quo'ted" \\ back\\\\slash , "after": {}\u0001\u001f\u007f\t\r\n 漢字 🌊 \u2028 __debezium`;

test('what lies in the topics is what readers of Debezium topics take', async t => {
  const brokers = server('TEST_KAFKA_BROKERS');
  if (!brokers) return skip(t, 'no Kafka');
  const {pg, settings, caughtUp, query} = await startPipeline(
    t,
    `CREATE TYPE state AS ENUM ('new', 'paid');
     CREATE TABLE orders (line int, id bigint, state state NOT NULL, note text, total numeric(30,4), big bigint,
       at timestamptz, PRIMARY KEY (id, line))`,
    {FRESHET_TOPIC_PARTITIONS: '2'},
  );
  await caughtUp(); // there is a stream to see what follows
  const big = '9223372036854775807';
  await pg.query(
    `INSERT INTO orders VALUES (1, ${big}, 'new', $1, '12345678901234567890123456.7891', -${big}, '2024-02-03 04:05:06.789012+02')`,
    [NASTY],
  );
  await pg.query(`UPDATE orders SET state = 'paid', note = NULL`);
  await pg.query('UPDATE orders SET line = 2');
  await pg.query('DELETE FROM orders');
  await pg.query('TRUNCATE orders');
  await caughtUp();
  t.deepEqual(await query('SELECT * FROM {an}.orders'), []);

  const events = await readEvents(brokers, topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'orders'));
  for (const {source} of events) {
    t.like(source, {
      name: settings.FRESHET_TOPIC_PREFIX,
      db: settings.FRESHET_SLOT,
      schema: 'public',
      table: 'orders',
    });
    t.is(source.sequence[1], String(source.lsn));
  }
  t.deepEqual(
    events.map(({op}) => op),
    ['c', 'u', 'd', 'c', 'd', 't', 't'],
  );
  const [insert, update, moved, arrived, deleted, ...truncates] = events as [Read, Read, Read, Read, Read];

  const [first, second] = [`{"id":${big},"line":1}`, `{"id":${big},"line":2}`];
  t.deepEqual(
    [insert, update, moved, arrived, deleted].map(event => event.key),
    [first, first, first, second, second],
  );
  for (const {key, partition} of events.slice(0, 5)) t.is(partition, partitionOf(Buffer.from(key!), 2));
  t.deepEqual(insert.after, {
    line: 1,
    id: Number(big),
    state: 'new',
    note: NASTY,
    total: '12345678901234567890123456.7891',
    big: -Number(big),
    at: '2024-02-03T02:05:06.789012Z',
  });
  t.true(insert.raw.includes(`"id":${big},`) && insert.raw.includes(`"big":-${big},`), 'exact as text');
  t.like(update, {before: null, after: {state: 'paid', note: null}});
  // A changed key: the old one goes, the new one comes, from one place of the log.
  t.like(moved, {after: null, before: {id: Number(big), line: 1}});
  t.like(arrived, {before: null, after: {id: Number(big), line: 2, state: 'paid'}});
  t.is(moved.source.lsn, arrived.source.lsn);
  t.like(deleted, {after: null, before: {id: Number(big), line: 2}});
  t.deepEqual(
    truncates.map(({key, before, after, partition}) => ({key, before, after, partition})),
    [0, 1].map(partition => ({key: null, before: null, after: null, partition})),
  );
});

test('a large value that was not sent again: whole under FULL, otherwise marked as Debezium does', async t => {
  const brokers = server('TEST_KAFKA_BROKERS');
  if (!brokers) return skip(t, 'no Kafka');
  const columns = 'id int PRIMARY KEY, n int, body text';
  const {pg, settings, caughtUp} = await startPipeline(
    t,
    `CREATE TABLE f (${columns}); CREATE TABLE d (${columns}); ALTER TABLE f REPLICA IDENTITY FULL;
     ALTER TABLE f ALTER body SET STORAGE EXTERNAL; ALTER TABLE d ALTER body SET STORAGE EXTERNAL;
     INSERT INTO f VALUES (1, 1, repeat('f', 5000)); INSERT INTO d VALUES (1, 1, repeat('d', 5000))`,
  );
  await caughtUp();
  await pg.query('UPDATE f SET n = 2; UPDATE d SET n = 2');
  await pg.query('DELETE FROM f');
  await caughtUp();
  const [full, deleted] = await readEvents(brokers, topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'f'));
  const [plain] = await readEvents(brokers, topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'd'));
  const body = 'f'.repeat(5000);
  t.like(full, {op: 'u', before: {id: 1, n: 1, body}, after: {id: 1, n: 2, body}});
  t.like(deleted, {op: 'd', before: {id: 1, n: 2, body}, after: null});
  t.like(plain, {op: 'u', before: null, after: {id: 1, n: 2, body: '__debezium_unavailable_value'}});
});

test('a snapshot through the topics lies there as r events, before what changed since', async t => {
  const brokers = server('TEST_KAFKA_BROKERS');
  if (!brokers) return skip(t, 'no Kafka');
  const {pg, settings, caughtUp} = await startPipeline(
    t,
    "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'one'), (2, NULL)",
    {FRESHET_SNAPSHOT_VIA: 'kafka', FRESHET_TOPIC_PARTITIONS: '1'},
  );
  await caughtUp();
  await pg.query("UPDATE a SET v = 'two' WHERE id = 2");
  await caughtUp();
  const events = await readEvents(brokers, topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'a'));
  t.deepEqual(
    events.map(({op, key, before, after, source}) => [op, key, before, after, source.snapshot]),
    [
      ['r', '{"id":1}', null, {id: 1, v: 'one'}, 'true'],
      ['r', '{"id":2}', null, {id: 2, v: null}, 'true'],
      ['u', '{"id":2}', null, {id: 2, v: 'two'}, 'false'],
    ],
  );
});
