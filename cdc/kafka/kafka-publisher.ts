import {setTimeout as sleep} from 'node:timers/promises';
import type {Admin, Kafka} from 'kafkajs';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Log} from '../observe/log.ts';
import type {Remembered} from '../remembered.ts';
import type {Settings} from '../settings/settings.ts';
import type {Lsn} from '../source/lsn.ts';
import type {TableSchema} from '../source/table-schema.ts';
import type {Batch} from './batch.ts';
import {asKafkaError} from './client.ts';
import {lastWatermark} from './last-watermark.ts';
import type {Ends, OutMessage} from './message.ts';
import {PartitionGrowth} from './partition-growth.ts';
import {placeOf} from './place.ts';
import {type Outgoing, type Placed, PRODUCERS, type Producer} from './producer.ts';
import {inRequests, type PartitionRecords} from './requests.ts';
import {TopicLedger} from './topic-ledger.ts';
import {
  allEnds,
  deadLetterTopic,
  endsOf,
  partitionsFor,
  prepareTopics,
  type TopicLimits,
  topicName,
  watermarkTopic,
} from './topics.ts';
import type {Published, Publisher, Watermark} from './transport.ts';

/** How often it is looked whether sinks have come so far: they commit as often. */
const APPLIED_MS = 500;

/** Sends with `acks=-1` through an idempotent producer, one request at a time, so that order holds in a partition. */
export class KafkaPublisher implements Publisher {
  onTooLarge: Publisher['onTooLarge'];
  readonly #kafka: Kafka;
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #ledger: TopicLedger;
  readonly #growth: PartitionGrowth;
  readonly #limits = new Map<string, TopicLimits>();
  readonly #topics = new Map<string, string>();
  #producer: Producer | undefined;
  /** It is not to be sent by any more: a new one is made before the next send. */
  #isSpent = false;
  /** Stream and snapshots send by one producer, which takes one request at a time. */
  #last: Promise<unknown> = Promise.resolve();
  readonly isLog = true;

  constructor(kafka: Kafka, settings: Settings, log: Log, remembered: Remembered) {
    this.#kafka = kafka;
    this.#settings = settings;
    this.#log = log;
    this.#ledger = new TopicLedger(remembered);
    this.#growth = new PartitionGrowth(this.#ledger, {
      kafka,
      log,
      group: settings.FRESHET_CONSUMER_GROUP,
      topics: this.#topics,
    });
  }

  async cluster(): Promise<string> {
    return this.#withAdmin(async admin => (await admin.describeCluster()).clusterId);
  }

  async lastPosition(): Promise<Lsn | undefined> {
    return lastWatermark(this.#kafka, this.#settings, this.#log);
  }

  async lost(tables: readonly TableSchema[]): Promise<Map<string, string>> {
    return this.#withAdmin(async admin => {
      const existing = new Set(await admin.listTopics());
      const lost = new Map<string, string>();
      for (const table of tables) {
        const topic = this.#topic(table);
        const problem = existing.has(topic)
          ? await this.#ledger.problem(topic, await endsOf(admin, topic))
          : 'its topic is gone';
        if (problem !== undefined) lost.set(table.name, problem);
      }
      return lost;
    });
  }

  async prepare(tables: readonly TableSchema[]): Promise<void> {
    await this.#withAdmin(async admin => {
      const topics = tables.map(table => ({table: table.name, topic: this.#topic(table)}));
      const partitions = partitionsFor(this.#settings, Math.max(topics.length, this.#topics.size));
      const limits = await prepareTopics(
        admin,
        this.#settings,
        [
          ...topics.map(({topic}) => ({topic, partitions})),
          {topic: watermarkTopic(this.#settings.FRESHET_TOPIC_PREFIX), partitions: 1},
          {topic: deadLetterTopic(this.#settings.FRESHET_TOPIC_PREFIX), partitions: 1},
        ],
        this.#log,
      );
      for (const {table, topic} of topics) {
        const found = limits.get(topic);
        if (found) this.#limits.set(table, found);
        this.#topics.set(table, topic);
        const ends = await endsOf(admin, topic);
        if (!this.#ledger.isOpen(topic) || (await this.#ledger.problem(topic, ends)))
          await this.#ledger.open(topic, ends);
      }
      await this.#ledger.save();
      this.#producer ??= await this.#connect();
    });
    this.#growth.start();
  }

  rememberEnds(): Promise<void> {
    return this.#ledger.save();
  }

  async ends(): Promise<Ends> {
    return this.#withAdmin(admin => allEnds(admin, this.#topics));
  }

  /** By what the sinks have committed, which they do when it is visible. */
  async applied(table: TableSchema, signal: AbortSignal): Promise<void> {
    const topic = this.#topic(table);
    const groupId = this.#settings.FRESHET_CONSUMER_GROUP;
    await this.#withAdmin(async admin => {
      const ends = await admin.fetchTopicOffsets(topic);
      while (!signal.aborted) {
        const committed = (await admin.fetchOffsets({groupId, topics: [topic]}))[0]?.partitions ?? [];
        const next = new Map(committed.map(({partition, offset}) => [partition, BigInt(offset)]));
        if (ends.every(({partition, high}) => (next.get(partition) ?? 0n) >= BigInt(high))) return;
        await sleep(APPLIED_MS, undefined, {signal}).catch(() => {});
      }
    });
  }

  async #withAdmin<T>(work: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = this.#kafka.admin();
    try {
      await admin.connect();
      return await work(admin);
    } catch (error) {
      throw asKafkaError(error);
    } finally {
      await admin.disconnect().catch(() => {});
    }
  }

  #connect(): Promise<Producer> {
    return PRODUCERS[this.#settings.FRESHET_KAFKA_PRODUCER](this.#settings, this.#kafka, this.#log);
  }

  #partitions(table: string): number {
    return this.#ledger.partitions(this.#topics.get(table) ?? '') ?? this.#limit(table).partitions;
  }

  #limit(table: string): TopicLimits {
    const limits = this.#limits.get(table);
    if (!limits) throw new PipelineError('internal', `${table} has no topic yet`, {table});
    return limits;
  }

  /** One after the other: what was taken is durable. */
  async publish(batch: Batch): Promise<Published> {
    const ends: Record<string, Record<number, string>> = {};
    const refused: {message: OutMessage; error: PipelineError}[] = [];
    const settle = async (): Promise<void> => {
      for (const {message, error} of refused.splice(0)) {
        if (!this.onTooLarge) throw error;
        await this.onTooLarge(message, error);
      }
    };
    const messages = batch.messages(table => this.#partitions(table));
    const requests = inRequests(messages, {
      limitOf: ({table}) => this.#limit(table.name).maxBytes,
      refuse: (message, error) => refused.push({message, error}),
      records: () => this.#connected().records(),
    });
    for (const request of requests) {
      await settle();
      for (const [table, partition, end] of await this.#request(request)) {
        const ofTable = ends[table] ?? {};
        ends[table] = ofTable;
        ofTable[partition] = end;
      }
    }
    await settle();
    if (await this.#growth.took()) this.#isSpent = true; // it does not know the new partitions
    return {durable: Promise.resolve(ends)};
  }

  /** Sends in one request; gives the offset behind the last message of each partition. */
  async #request(request: readonly PartitionRecords[]): Promise<(readonly [string, number, string])[]> {
    const places = new Map<string, PartitionRecords & Outgoing>();
    for (const place of request) {
      const topic = this.#topic(place.table);
      places.set(placeOf(topic, place.partition), {...place, topic});
    }
    failpoint('kafka.before_send');
    const sent = await this.#send([...places.values()]);
    failpoint('kafka.after_send');
    return sent.flatMap(({topic, partition, offset: from}) => {
      const own = places.get(placeOf(topic, partition));
      if (!own || from < 0n) return [];
      const {name} = own.table;
      const end = from + BigInt(own.records.count);
      this.#ledger.wrote(topic, name, partition, {from, to: end});
      return [[name, partition, end.toString()] as const];
    });
  }

  async watermark(watermark: Watermark): Promise<void> {
    const topic = watermarkTopic(this.#settings.FRESHET_TOPIC_PREFIX);
    const value = Buffer.from(JSON.stringify(watermark));
    const records = this.#connected().records();
    records.add({key: null, value, headers: {}});
    await this.#send([{topic, partition: 0, records}]);
  }

  #connected(): Producer {
    if (!this.#producer) throw new PipelineError('internal', 'the publisher was not prepared');
    return this.#producer;
  }

  async #send(outgoing: readonly Outgoing[]): Promise<Placed[]> {
    this.#growth.check();
    this.#connected();
    try {
      const send = () => this.#sendNow(outgoing);
      const sending = this.#last.then(send, send);
      this.#last = sending.catch(() => {});
      failpoint('kafka.in_send');
      return await sending;
    } catch (error) {
      throw asKafkaError(error);
    }
  }

  async #sendNow(outgoing: readonly Outgoing[]): Promise<Placed[]> {
    if (this.#isSpent) await this.#renew();
    try {
      return await this.#connected().send(outgoing);
    } catch (error) {
      // It would give the same numbers to other messages: where these are there nonetheless, the broker would take
      // those for these, and say that it has them.
      this.#isSpent = true;
      throw error;
    }
  }

  async #renew(): Promise<void> {
    const spent = this.#connected();
    await spent.close().catch(() => {});
    const producer = await this.#connect();
    if (this.#producer !== spent) return producer.close(); // the publisher was closed meanwhile
    this.#producer = producer;
    this.#isSpent = false;
  }

  #topic({name, definition}: TableSchema): string {
    const prefix = this.#settings.FRESHET_TOPIC_PREFIX;
    return this.#topics.get(name) ?? topicName(prefix, definition.schema, definition.table);
  }

  async close(): Promise<void> {
    this.#growth.stop();
    await this.#producer?.close().catch(() => {});
    this.#producer = undefined;
  }
}
