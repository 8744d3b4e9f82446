import type {Admin, Kafka, Producer} from 'kafkajs';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {asKafkaError} from './client.ts';
import type {Ends, OutMessage} from './message.ts';
import {prepareTopics, topicName, watermarkTopic} from './topics.ts';
import type {Publisher, Watermark} from './transport.ts';

const ALL_IN_SYNC = -1;
const TIMEOUT_MS = 30_000;

interface Outgoing {
  readonly table: string;
  readonly messages: OutMessage[];
  /** partition → messages */
  readonly count: Map<number, number>;
}

/** Sends with `acks=-1` through an idempotent producer, one request at a time, so that order holds in a partition. */
export class KafkaPublisher implements Publisher {
  readonly #kafka: Kafka;
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #partitions = new Map<string, number>();
  readonly #topics = new Map<string, string>();
  #producer: Producer | undefined;

  constructor(kafka: Kafka, settings: Settings, log: Log) {
    this.#kafka = kafka;
    this.#settings = settings;
    this.#log = log;
  }

  async missing(tables: readonly TableSchema[]): Promise<string[]> {
    return this.#withAdmin(async admin => {
      const existing = new Set(await admin.listTopics());
      return tables.filter(table => !existing.has(this.#topic(table))).map(({name}) => name);
    });
  }

  async prepare(tables: readonly TableSchema[]): Promise<void> {
    await this.#withAdmin(async admin => {
      const topics = tables.map(table => ({table: table.name, topic: this.#topic(table)}));
      const counts = await prepareTopics(
        admin,
        this.#settings,
        [
          ...topics.map(({topic}) => ({topic, partitions: this.#settings.FRESHET_TOPIC_PARTITIONS})),
          {topic: watermarkTopic(this.#settings.FRESHET_TOPIC_PREFIX), partitions: 1},
        ],
        this.#log,
      );
      for (const {table, topic} of topics) {
        this.#partitions.set(table, counts.get(topic) ?? 1);
        this.#topics.set(table, topic);
      }
      this.#producer ??= await this.#connect();
    });
  }

  async ends(): Promise<Ends> {
    return this.#withAdmin(async admin => {
      const ends: Record<string, Record<number, string>> = {};
      for (const [table, topic] of this.#topics) {
        const offsets = await admin.fetchTopicOffsets(topic);
        ends[table] = Object.fromEntries(offsets.map(({partition, high}) => [partition, high]));
      }
      return ends;
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

  async #connect(): Promise<Producer> {
    const producer = this.#kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      // kafkajs retries an idempotent send for ever by default; a restart of the stage is as safe and is seen.
      retry: {retries: 8, initialRetryTime: 100, maxRetryTime: 5_000},
    });
    await producer.connect();
    return producer;
  }

  partitions(table: string): number {
    const count = this.#partitions.get(table);
    if (count === undefined) throw new PipelineError('internal', `${table} has no topic yet`, {table});
    return count;
  }

  async publish(messages: readonly OutMessage[]): Promise<Ends> {
    const byTopic = new Map<string, Outgoing>();
    for (const message of messages) {
      const topic = this.#topic(message.table);
      const entry: Outgoing = byTopic.get(topic) ?? {
        table: message.table.name,
        messages: [],
        count: new Map(),
      };
      byTopic.set(topic, entry);
      entry.messages.push(message);
      entry.count.set(message.partition, (entry.count.get(message.partition) ?? 0) + 1);
    }
    const ends: Record<string, Record<number, string>> = {};
    failpoint('kafka.before_send');
    const sent = await this.#send([...byTopic].map(([topic, entry]) => ({topic, messages: entry.messages})));
    failpoint('kafka.after_send');
    for (const {topicName: topic, partition, baseOffset} of sent) {
      const entry = byTopic.get(topic);
      if (!entry || baseOffset === undefined) continue;
      ends[entry.table] = {
        ...ends[entry.table],
        [partition]: (BigInt(baseOffset) + BigInt(entry.count.get(partition) ?? 0)).toString(),
      };
    }
    return ends;
  }

  async watermark(watermark: Watermark): Promise<void> {
    const topic = watermarkTopic(this.#settings.FRESHET_TOPIC_PREFIX);
    await this.#send([
      {
        topic,
        messages: [{partition: 0, key: null, value: Buffer.from(JSON.stringify(watermark)), headers: {}}],
      },
    ]);
  }

  async #send(
    topicMessages: {topic: string; messages: Pick<OutMessage, 'partition' | 'key' | 'value' | 'headers'>[]}[],
  ) {
    if (!this.#producer) throw new PipelineError('internal', 'the publisher was not prepared');
    try {
      const sending = this.#producer.sendBatch({topicMessages, acks: ALL_IN_SYNC, timeout: TIMEOUT_MS});
      failpoint('kafka.in_send');
      return await sending;
    } catch (error) {
      throw asKafkaError(error);
    }
  }

  #topic({definition}: TableSchema): string {
    return topicName(this.#settings.FRESHET_TOPIC_PREFIX, definition.schema, definition.table);
  }

  async close(): Promise<void> {
    await this.#producer?.disconnect().catch(() => {});
    this.#producer = undefined;
  }
}
