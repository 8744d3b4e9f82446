import test, {type ExecutionContext} from 'ava';
import kafkajs, {type Kafka, type Producer} from 'kafkajs';
import type {Settings} from '../settings/settings.ts';
import {ownTopics} from '../test-support/own-topics.ts';
import {kafkaRequest, startProxy} from '../test-support/proxy.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {server} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {Fetcher} from './fetcher.ts';
import {HEADER, type InMessage} from './message.ts';
import {FetchedRecords} from './read-records.ts';
import {RecordBatch} from './record-batch.ts';

const PARTITIONS = 2;
const LIMITS = {most: 1 << 20, ofPartition: 1 << 18};

/** Otherwise kafkajs sends again what one of two partitions has already, where the other did not know of its topic yet. */
const ONCE = {idempotent: true, maxInFlightRequests: 1, allowAutoTopicCreation: false};

interface Ground {
  readonly kafka: Kafka;
  readonly settings: Settings;
  readonly topic: string;
}

async function ground(t: ExecutionContext): Promise<Ground | undefined> {
  const own = await ownTopics(t, ['a'], {numPartitions: PARTITIONS});
  return own && {...own, topic: own.topics[0]!};
}

/** A producer that is gone with the test. */
async function producerOf(t: ExecutionContext, kafka: Kafka): Promise<Producer> {
  const producer = kafka.producer(ONCE);
  await producer.connect();
  t.teardown(() => producer.disconnect());
  return producer;
}

/** As texts; of a header that occurs twice the last one. */
const plain = ({key, value, headers}: Pick<InMessage, 'key' | 'value' | 'headers'>): unknown => ({
  key: key?.toString() ?? null,
  value: value?.toString('base64') ?? null,
  headers: Object.fromEntries(
    Object.entries(headers).map(([name, held]) => [name, String(Array.isArray(held) ? held.at(-1) : held)]),
  ),
});

test('whoever wrote them, messages are read as kafkajs reads them', async t => {
  const on = await ground(t);
  if (!on) return;
  const {kafka, settings, topic} = on;
  const send = async (more: object, count: number): Promise<void> => {
    const producer = await producerOf(t, kafka);
    const messages = Array.from({length: count}, (_, i) => ({
      partition: i % PARTITIONS,
      key: i % 5 === 0 ? null : Buffer.from(`{"id":${i}}`),
      value: i % 7 === 0 ? null : Buffer.alloc((i * 97) % 4_000, `${i} `),
      headers: {
        [HEADER.row]: `row ${i}`,
        [HEADER.key]: `key ${i}`,
        ...(i % 3 === 0 && {größe: '🜁', twice: ['one', `two ${i}`], none: ''}),
      },
    }));
    await producer.send({topic, messages, ...more});
  };
  await send({}, 400);
  await send({compression: kafkajs.CompressionTypes.GZIP}, 300);
  await send({compression: kafkajs.CompressionTypes.ZSTD}, 200);
  // Its end is a record of Kafka's own, which takes an offset and is no message.
  const transactional = kafka.producer({transactionalId: topic, maxInFlightRequests: 1, idempotent: true});
  await transactional.connect();
  const transaction = await transactional.transaction();
  await transaction.send({topic, messages: [{partition: 0, key: 'of a transaction', value: 'value'}]});
  await transaction.commit();
  await transactional.disconnect();
  await send({}, 100);
  const total = 1001;

  const wanted: unknown[][] = [[], []];
  const read = Promise.withResolvers<void>();
  const consumer = kafka.consumer({groupId: topic});
  await consumer.connect();
  await consumer.subscribe({topics: [topic], fromBeginning: true});
  await consumer.run({
    eachMessage: async ({partition, message: {offset, key, value, headers}}) => {
      const one = {key, value, headers: (headers ?? {}) as InMessage['headers']};
      wanted[partition]!.push([offset, plain(one)]);
      if (wanted.flat().length === total) read.resolve();
    },
  });
  await read.promise;
  await consumer.disconnect();

  const got: unknown[][] = [[], []];
  const over = new AbortController();
  const fetcher = new Fetcher({
    settings,
    log: quietLog(),
    limits: LIMITS,
    take: async ({partition}, records) => {
      for (const message of records.messages())
        got[partition]!.push([message.offset.toString(), plain(message)]);
      if (got.flat().length >= total) over.abort();
    },
  });
  t.teardown(() => fetcher.close());
  await fetcher.run(
    [0, 1].map(partition => ({topic, partition, offset: 0n})),
    over.signal,
  );
  t.deepEqual(got, wanted);
});

test('a partition is read on from where it is sent to, and not while its topic is set aside', async t => {
  const on = await ground(t);
  if (!on) return;
  const {kafka, settings, topic} = on;
  const producer = await producerOf(t, kafka);
  const write = (from: number, to: number): Promise<unknown> =>
    producer.send({
      topic,
      messages: Array.from({length: to - from}, (_, i) => ({partition: 0, value: `${from + i}`})),
    });
  await write(0, 10);
  const got: number[] = [];
  let waiting: {count: number; done: () => void} | undefined;
  const until = (count: number): Promise<void> =>
    new Promise(done => {
      waiting = {count, done};
      if (got.length >= count) done();
    });
  const over = new AbortController();
  const fetcher = new Fetcher({
    settings,
    log: quietLog(),
    limits: LIMITS,
    take: async (_, records) => {
      for (const {value} of records.messages()) got.push(Number(value));
      if (waiting && got.length >= waiting.count) waiting.done();
    },
  });
  t.teardown(() => fetcher.close());
  const running = fetcher.run([{topic, partition: 0, offset: 4n}], over.signal);
  await until(6);
  fetcher.pause(topic);
  await write(10, 20);
  fetcher.seek({topic, partition: 0}, 7n);
  fetcher.resume(topic);
  await until(6 + 13);
  await write(20, 21);
  await until(6 + 13 + 1);
  over.abort();
  await running;
  t.deepEqual(got, [4, 5, 6, 7, 8, 9, ...Array.from({length: 14}, (_, i) => 7 + i)]);
});

test('what was fetched of a topic that is set aside meanwhile comes again', async t => {
  const on = await ground(t);
  if (!on) return;
  const {kafka, settings, topic} = on;
  const producer = await producerOf(t, kafka);
  const values = Array.from({length: 20}, (_, i) => `${i}`);
  await producer.send({topic, messages: values.map((value, i) => ({partition: i % PARTITIONS, value}))});
  const got: string[] = [];
  const over = new AbortController();
  const fetcher = new Fetcher({
    settings,
    log: quietLog(),
    limits: LIMITS,
    take: async (_, records) => {
      for (const {value} of records.messages()) got.push(String(value));
      if (got.length >= values.length) over.abort();
      // The other partition lies in the same answer.
      fetcher.pause(topic);
      setTimeout(() => fetcher.resume(topic), 50);
    },
  });
  t.teardown(() => fetcher.close());
  await fetcher.run(
    [0, 1].map(partition => ({topic, partition, offset: 0n})),
    over.signal,
  );
  t.deepEqual(
    got.toSorted((a, b) => Number(a) - Number(b)),
    values,
  );
});

test('where a partition is refused, nothing of the others in the same answer is passed over', async t => {
  const on = await ownTopics(t, ['a', 'b'], {numPartitions: 1});
  if (!on) return;
  const {kafka, topics} = on;
  const [a, b] = topics as [string, string];
  const network = await startProxy(t, `kafka://${server('TEST_KAFKA_BROKERS')}`);
  const settings = {...on.settings, FRESHET_KAFKA_BROKERS: [new URL(network.url).host]};
  const producer = await producerOf(t, kafka);
  const admin = kafka.admin();
  await admin.connect();
  t.teardown(() => admin.disconnect());
  const got: string[] = [];
  const log = quietLog();
  const over = new AbortController();
  const fetcher = new Fetcher({
    settings,
    log,
    limits: LIMITS,
    take: async (_, records) => {
      for (const {value} of records.messages()) got.push(String(value));
      if (got.includes('last')) over.abort();
    },
  });
  t.teardown(() => fetcher.close());

  const asked = network.on(kafkaRequest('fetch'), 'hold', 1);
  const running = fetcher.run(
    topics.map(topic => ({topic, partition: 0, offset: 0n})),
    over.signal,
  );
  await asked.times(1);
  await producer.send({topic: a, messages: [{value: 'first'}, {value: 'second'}]});
  await admin.deleteTopics({topics: [b]});
  await until(async () => !(await admin.listTopics()).includes(b));
  const refused = network.on(kafkaRequest('metadata'), 'hold', 1);
  asked.release();
  await refused.times(1);
  await admin.createTopics({topics: [{topic: b, numPartitions: 1}]});
  refused.release();
  await producer.send({topic: a, messages: [{value: 'last'}]});
  await running;
  t.deepEqual(got, ['first', 'second', 'last']);
  t.true(log.entries.some(({level, message}) => level === 'warn' && message.includes(b)));
});

test('a reading that ends late moves nothing of the one behind it', async t => {
  const on = await ground(t);
  if (!on) return;
  const {kafka, settings, topic} = on;
  const producer = await producerOf(t, kafka);
  const write = (value: string): Promise<unknown> =>
    producer.send({topic, messages: [{partition: 0, value}]});
  for (const value of ['0', '1']) await write(value);
  const [taking, room] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const [before, over] = [new AbortController(), new AbortController()];
  const got: string[] = [];
  const fetcher = new Fetcher({
    settings,
    log: quietLog(),
    limits: LIMITS,
    take: async (_, records) => {
      if (!before.signal.aborted) {
        taking.resolve();
        return room.promise;
      }
      for (const {value} of records.messages()) got.push(String(value));
      if (got.includes('last')) over.abort();
    },
  });
  t.teardown(() => fetcher.close());
  const from = [{topic, partition: 0, offset: 0n}];
  const first = fetcher.run(from, before.signal);
  await taking.promise;
  before.abort();
  fetcher.pause(topic);
  const second = fetcher.run(from, over.signal);
  // One that was superseded before it began.
  await fetcher.run([{topic, partition: 0, offset: 1n}], before.signal);
  room.resolve();
  await first;
  fetcher.resume(topic);
  await write('last');
  await second;
  t.deepEqual(got, ['0', '1', 'last']);
});

test('a partition that does not exist any more, or an offset that is not there, ends the reading', async t => {
  const on = await ground(t);
  if (!on) return;
  const {settings, topic} = on;
  const never = new AbortController().signal;
  const fetcher = new Fetcher({settings, log: quietLog(), limits: LIMITS, take: async () => {}});
  t.teardown(() => fetcher.close());
  await t.throwsAsync(fetcher.run([{topic, partition: 0, offset: 5n}], never), {
    message: /offset/,
  });
});

test('of bytes that are cut off whole batches are read, and damaged ones are refused', t => {
  const batch = (count: number): Buffer => {
    const records = new RecordBatch();
    for (let i = 0; i < count; i++) records.add({key: null, value: Buffer.from(`value ${i}`), headers: {}});
    return Buffer.from(records.seal({producerId: 1n, producerEpoch: 0, sequence: 0}, 0));
  };
  const [first, second] = [batch(3), batch(2)];
  second.writeBigInt64BE(3n, 0);
  const both = Buffer.concat([first, second]);
  const offsets = (records: FetchedRecords): bigint[] => [...records.messages()].map(({offset}) => offset);
  const whole = new FetchedRecords(both, 1n);
  t.deepEqual([whole.first, whole.next, offsets(whole)], [1n, 5n, [1n, 2n, 3n, 4n]]);
  for (const cut of [1, 20, second.length - 1]) {
    const part = new FetchedRecords(both.subarray(0, both.length - cut), 0n);
    t.deepEqual([part.first, part.next, offsets(part)], [0n, 3n, [0n, 1n, 2n]]);
  }
  const gap = new FetchedRecords(second, 0n);
  t.deepEqual([gap.first, gap.next], [3n, 5n]);
  const none = new FetchedRecords(Buffer.alloc(0), 9n);
  t.deepEqual([none.first, none.next, offsets(none)], [9n, 9n, []]);
  for (let at = 21; at < first.length; at += 3) {
    const damaged = Buffer.from(first);
    damaged[at]! ^= 0x10;
    const error = t.throws(() => offsets(new FetchedRecords(damaged, 0n)));
    t.like(error, {code: 'kafka.unavailable'});
  }
});
