import {randomBytes} from 'node:crypto';
import test from 'ava';
import {ownTopics} from '../test-support/own-topics.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {asKafkaError} from './client.ts';
import type {Headers} from './message.ts';
import {type Outgoing, PRODUCERS, type Sendable} from './producer.ts';

const PARTITIONS = 3;

const WAYS = (Object.keys(PRODUCERS) as (keyof typeof PRODUCERS)[]).flatMap(name =>
  (['zstd', 'none'] as const).map(compression => ({name, compression})),
);

for (const {name, compression} of WAYS) {
  test(`${name}, ${compression}: messages lie in the topics as they were given, each once and in order`, async t => {
    const configEntries = [{name: 'max.message.bytes', value: '300000'}];
    const own = await ownTopics(t, ['a', 'b'], {numPartitions: PARTITIONS, configEntries});
    if (!own) return;
    const {kafka, topics} = own;
    const settings = {...own.settings, FRESHET_KAFKA_COMPRESSION: compression};
    const producer = await PRODUCERS[name](settings, kafka, quietLog());
    const consumer = kafka.consumer({groupId: settings.FRESHET_TOPIC_PREFIX});
    t.teardown(async () => {
      await producer.close();
      await consumer.disconnect();
    });

    const sent = new Lists();
    for (let round = 0; round < 4; round++) {
      const before = new Map(Object.entries(sent.of).map(([place, own]) => [place, own.length]));
      const outgoing = topics.flatMap(topic =>
        Array.from({length: PARTITIONS}, (_, partition): Outgoing => {
          const records = producer.records();
          for (let i = 0; i <= round * 170; i++) {
            const one = message(round, i * PARTITIONS + partition);
            records.add(one);
            sent.add(topic, partition, one);
          }
          return {topic, partition, records};
        }),
      );
      const placed = await producer.send(outgoing);
      t.is(placed.length, outgoing.length);
      for (const {topic, partition, offset} of placed)
        t.is(offset, BigInt(before.get(`${topic}/${partition}`) ?? 0));
    }

    const send = (one: Sendable): Promise<unknown> => {
      const records = producer.records();
      records.add(one);
      return producer.send([{topic: topics[0]!, partition: 0, records}]);
    };
    const error = await t.throwsAsync(send({key: null, value: randomBytes(400_000), headers: {}}));
    t.is(asKafkaError(error).code, 'kafka.message_too_large');
    // What was refused has taken no number: the next ones are taken.
    const last = {key: Buffer.from('last'), value: Buffer.from('last'), headers: {}};
    await send(last);
    sent.add(topics[0]!, 0, last);

    const got = new Lists();
    const {promise, resolve} = Promise.withResolvers<void>();
    await consumer.connect();
    await consumer.subscribe({topics: [...topics], fromBeginning: true});
    await consumer.run({
      eachMessage: async ({topic, partition, message: {key, value, headers}}) => {
        got.add(topic, partition, {key, value: value!, headers: headers as Headers});
        if (got.count === sent.count) resolve();
      },
    });
    await promise;
    t.deepEqual(got.of, sent.of);
  });
}

/** Sizes around those at which a length takes one more byte, texts that are not ASCII, keys that are none. */
function message(round: number, i: number) {
  const size = [0, 1, 63, 64, 127, 128, 8191, 8192][(round + i) % 8]! % (i > 40 ? 200 : 10_000);
  const headers: Headers =
    i % 5 === 0
      ? {}
      : {row: Buffer.alloc(i % 70, 'é'), größe: Buffer.from(`${size} – 🜁`), none: Buffer.alloc(0)};
  return {
    key: i % 4 === 0 ? null : Buffer.from(`{"id":${i}}`),
    value: Buffer.alloc(size, `${round} ${i} `),
    headers,
  };
}

/** Messages by 'topic/partition', as texts. */
class Lists {
  readonly of: Record<string, unknown[]> = {};
  count = 0;
  add(topic: string, partition: number, {key, value, headers}: Sendable): void {
    const own = this.of[`${topic}/${partition}`] ?? [];
    this.of[`${topic}/${partition}`] = own;
    this.count += 1;
    own.push({
      key: key?.toString() ?? null,
      value: value.toString('base64'),
      headers: Object.fromEntries(Object.entries(headers).map(([name, held]) => [name, held.toString()])),
    });
  }
}
