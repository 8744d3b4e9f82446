import {setTimeout as sleep} from 'node:timers/promises';
import type {Admin, Consumer, EachBatchPayload, Kafka, KafkaMessage} from 'kafkajs';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {asKafkaError} from './client.ts';
import type {InMessage} from './message.ts';
import {topicName, watermarkTopic} from './topics.ts';
import type {Receiver, Subscriber, Watermark} from './transport.ts';

const COMMIT_EVERY_MS = 500;
/** The consumer also beats while it waits for room, so no insert is too long for the session. */
const BEATS_A_SESSION = 5;

const WatermarkMessage = z.object({
  position: z.string(),
  micros: z.string(),
  newest: z.record(z.string(), z.string()),
  ends: z.record(z.string(), z.record(z.coerce.number(), z.string())),
}) satisfies z.ZodType<Watermark>;

/** A sink's membership in the consumer group. Offsets are committed when the rows are visible, and never reset. */
export class KafkaSubscriber implements Subscriber {
  readonly #kafka: Kafka;
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #tableOf = new Map<string, string>();
  readonly #topicOf = new Map<string, string>();
  readonly #watermarkTopic: string;
  readonly #admin: Admin;
  /** 'topic/partition' → the offset that must come next. */
  readonly #expected = new Map<string, bigint>();
  readonly #toCommit = new Map<string, {topic: string; partition: number; offset: string}>();
  #consumer: Consumer | undefined;

  constructor(
    kafka: Kafka,
    settings: Settings,
    log: Log,
    tables: readonly {schema: string; table: string; name: string}[],
  ) {
    this.#kafka = kafka;
    this.#settings = settings;
    this.#log = log;
    this.#watermarkTopic = watermarkTopic(settings.FRESHET_TOPIC_PREFIX);
    this.#admin = kafka.admin();
    for (const {schema, table, name} of tables) {
      const topic = topicName(settings.FRESHET_TOPIC_PREFIX, schema, table);
      this.#tableOf.set(topic, name);
      this.#topicOf.set(name, topic);
    }
  }

  async run(receiver: Receiver, signal: AbortSignal): Promise<void> {
    const watermarks = this.#watermarkTopic;
    const {FRESHET_CONSUMER_GROUP, FRESHET_KAFKA_SESSION_MS} = this.#settings;
    const consumer = this.#kafka.consumer({
      groupId: FRESHET_CONSUMER_GROUP,
      sessionTimeout: FRESHET_KAFKA_SESSION_MS,
      rebalanceTimeout: FRESHET_KAFKA_SESSION_MS * 2,
      heartbeatInterval: FRESHET_KAFKA_SESSION_MS / BEATS_A_SESSION,
      maxWaitTimeInMs: 100,
      // One message above these limits is still delivered whole.
      maxBytesPerPartition: 4 << 20,
      maxBytes: 16 << 20,
      allowAutoTopicCreation: false,
      // A crash is for the supervisor: it starts the stage again, with its own backoff.
      retry: {retries: 3, restartOnFailure: () => Promise.resolve(false)},
    });
    this.#consumer = consumer;
    const crashed = Promise.withResolvers<never>();
    consumer.on(consumer.events.CRASH, ({payload}) => crashed.reject(asKafkaError(payload.error)));
    // What a partition's next offset is may have changed while another member had it.
    consumer.on(consumer.events.GROUP_JOIN, () => this.#expected.clear());
    const stopped = new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), {once: true});
    });
    const topics = [...this.#tableOf.keys(), watermarks];
    try {
      await this.#admin.connect();
      await this.#checkNothingLost(topics);
      await consumer.connect();
      await consumer.subscribe({topics, fromBeginning: true});
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        partitionsConsumedConcurrently: 3,
        eachBatch: async payload => {
          if (signal.aborted) return;
          try {
            if (payload.batch.topic === watermarks) this.#watermarks(payload, receiver);
            else await this.#batch(payload, receiver);
          } catch (error) {
            crashed.reject(error);
            throw error;
          }
        },
      });
      await Promise.race([stopped, crashed.promise, this.#commitLoop(signal)]);
    } catch (error) {
      throw asKafkaError(error);
    }
  }

  async #batch(
    {batch, heartbeat, resolveOffset, isStale, isRunning}: EachBatchPayload,
    receiver: Receiver,
  ): Promise<void> {
    const table = this.#tableOf.get(batch.topic);
    if (!table || !isRunning() || isStale() || batch.messages.length === 0) return;
    this.#checkContiguous(batch.topic, batch.partition, batch.messages);
    let accepted = false;
    const accepting = receiver
      .accept({table, partition: batch.partition, messages: batch.messages.map(inMessage)})
      .finally(() => {
        accepted = true;
      });
    accepting.catch(() => {}); // awaited below
    while (!accepted) {
      await Promise.race([accepting, sleep(this.#settings.FRESHET_KAFKA_SESSION_MS / BEATS_A_SESSION)]);
      await heartbeat();
    }
    await accepting;
    resolveOffset(batch.lastOffset());
  }

  /** Offsets of a topic that is not compacted have no gaps: one means that messages went before they were read. */
  #checkContiguous(topic: string, partition: number, messages: readonly KafkaMessage[]): void {
    const place = `${topic}/${partition}`;
    const first = BigInt(messages[0]!.offset);
    const expected = this.#expected.get(place);
    if (expected !== undefined && first > expected) {
      throw new PipelineError(
        'kafka.offsets_lost',
        `${place} goes on at ${first}, where ${expected} was due`,
      );
    }
    this.#expected.set(place, BigInt(messages.at(-1)!.offset) + 1n);
  }

  /** A group that stands before the first message kept would be moved on silently: refuse instead. */
  async #checkNothingLost(topics: readonly string[]): Promise<void> {
    const committed = await this.#committed(topics);
    for (const topic of topics) {
      for (const {partition, low, high} of await this.#admin.fetchTopicOffsets(topic)) {
        const next = committed.get(`${topic}/${partition}`) ?? 0n;
        if (next < BigInt(low) || next > BigInt(high)) {
          throw new PipelineError(
            'kafka.offsets_lost',
            `${topic}/${partition} holds ${low} to ${high}, but the group goes on at ${next}`,
          );
        }
      }
    }
  }

  async #committed(topics: readonly string[]): Promise<Map<string, bigint>> {
    const offsets = await this.#admin.fetchOffsets({
      groupId: this.#settings.FRESHET_CONSUMER_GROUP,
      topics: [...topics],
    });
    return new Map(
      offsets.flatMap(({topic, partitions}) =>
        partitions
          .filter(({offset}) => offset !== '-1')
          .map(({partition, offset}) => [`${topic}/${partition}`, BigInt(offset)] as const),
      ),
    );
  }

  #watermarks({batch, resolveOffset}: EachBatchPayload, receiver: Receiver): void {
    for (const {value, offset} of batch.messages) {
      if (value === null) continue;
      receiver.watermark(WatermarkMessage.parse(JSON.parse(value.toString('utf8'))));
      const place = {topic: batch.topic, partition: 0, offset: (BigInt(offset) + 1n).toString()};
      // Read again after a restart: the last one must be known even where nothing new comes.
      this.#toCommit.set(batch.topic, {...place, offset});
    }
    resolveOffset(batch.lastOffset());
  }

  visible(table: string, partition: number, next: bigint): void {
    const topic = this.#topicOf.get(table);
    if (topic) this.#toCommit.set(`${topic}/${partition}`, {topic, partition, offset: next.toString()});
  }

  async elsewhere(tables: readonly string[]): Promise<(readonly [string, number, bigint])[]> {
    const topics = tables.flatMap(table => this.#topicOf.get(table) ?? []);
    return [...(await this.#committed(topics))].map(([place, next]) => {
      const slash = place.lastIndexOf('/');
      return [this.#tableOf.get(place.slice(0, slash)) ?? '', Number(place.slice(slash + 1)), next];
    });
  }

  async #commitLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(COMMIT_EVERY_MS, undefined, {signal}).catch(() => {});
      await this.#commit();
    }
  }

  /** A commit that the group refuses (it is rebalancing) is no loss: the next owner applies those rows again. */
  async #commit(): Promise<void> {
    const offsets = [...this.#toCommit.values()];
    if (offsets.length === 0) return;
    this.#toCommit.clear();
    failpoint('sink.before_commit');
    try {
      await this.#consumer?.commitOffsets(offsets);
      failpoint('sink.after_commit');
    } catch (error) {
      this.#log.debug({error: String(error)}, 'offsets were not committed');
      for (const offset of offsets) {
        const place =
          offset.topic === this.#watermarkTopic ? offset.topic : `${offset.topic}/${offset.partition}`;
        if (!this.#toCommit.has(place)) this.#toCommit.set(place, offset);
      }
    }
  }

  park(table: string): boolean {
    const topic = this.#topicOf.get(table);
    if (topic) this.#consumer?.pause([{topic}]);
    return true;
  }

  /** To be called when what was accepted is visible: commits, and leaves the group. */
  async close(): Promise<void> {
    await this.#commit();
    await this.#consumer?.disconnect().catch(() => {});
    await this.#admin.disconnect().catch(() => {});
  }
}

/** kafkajs gives a header that occurs twice as a list; the last one counts. */
function inMessage({offset, key, value, headers}: KafkaMessage): InMessage {
  const plain: Record<string, Buffer | undefined> = {};
  for (const [name, held] of Object.entries(headers ?? {})) {
    const last = Array.isArray(held) ? held.at(-1) : held;
    plain[name] = typeof last === 'string' ? Buffer.from(last) : last;
  }
  return {offset: BigInt(offset), key, value, headers: plain};
}
