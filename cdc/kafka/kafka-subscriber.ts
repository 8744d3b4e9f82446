import {setTimeout as sleep} from 'node:timers/promises';
import type {Admin, Consumer, EachBatchPayload, Kafka} from 'kafkajs';
import {aborted} from '../aborted.ts';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {asKafkaError} from './client.ts';
import type {Fetcher, FetcherOptions} from './fetcher.ts';
import {type Begin, type Gap, GroupPositions} from './group-positions.ts';
import type {Place} from './place.ts';
import type {FetchedRecords} from './read-records.ts';
import {allEnds, topicName, watermarkTopic} from './topics.ts';
import type {Receiver, Rewind, Subscriber} from './transport.ts';
import {WatermarkMessage} from './watermark-message.ts';

const COMMIT_EVERY_MS = 500;
/**
 * kafkajs beats by the wall clock: set back by an hour, it lets the group forget this member for an hour. Whom the
 * group has refused for so many sessions joins anew.
 */
const REFUSED_SESSIONS = 2;
const BEATS_A_SESSION = 5;

/** What a fetch brings is in no budget: two of them for each broker. One message above is still delivered whole. */
const LARGEST_FETCH = 2 << 20;
/** So soon it is noticed that a topic has more partitions. */
const METADATA_MS = 10_000;

/** Asks capture to read a table again; resolves when that will be done, whatever fails from then on. */
export type ReadAgain = (table: string, reason: string) => Promise<void>;

/**
 * A sink's membership in the consumer group. Offsets are committed when the rows are visible, and never reset. kafkajs
 * keeps the membership and reads the watermarks; the tables' topics, of which it makes a dozen objects for a message,
 * are read by a fetcher of our own.
 */
export class KafkaSubscriber implements Subscriber {
  readonly #kafka: Kafka;
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #tableOf = new Map<string, string>();
  readonly #topicOf = new Map<string, string>();
  readonly #watermarkTopic: string;
  readonly #admin: Admin;
  readonly #positions: GroupPositions;
  readonly #readAgain: ReadAgain;
  /** Resolves when it is known where the partitions of the last assignment begin. */
  #assigned: Promise<unknown> = Promise.resolve();
  /** Watermarks before the next one are lost, or were told to another member: what they said of the ends is not known. */
  #unseen = true;
  /** When the group last took offsets (performance.now). */
  #committedAt = performance.now();
  #consumer: Consumer | undefined;
  #fetcher: Fetcher | undefined;
  /** Ends the reading of partitions that may not be ours any more. */
  #fetching = new AbortController();
  /** Resolves when that reading has ended: what it has handed over may still wait for room. */
  #read: Promise<unknown> = Promise.resolve();

  constructor(
    kafka: Kafka,
    settings: Settings,
    log: Log,
    tables: readonly {schema: string; table: string; name: string}[],
    readAgain: ReadAgain,
  ) {
    this.#readAgain = readAgain;
    this.#kafka = kafka;
    this.#settings = settings;
    this.#log = log;
    this.#watermarkTopic = watermarkTopic(settings.FRESHET_TOPIC_PREFIX);
    this.#admin = kafka.admin();
    this.#positions = new GroupPositions(this.#admin, settings.FRESHET_CONSUMER_GROUP, log);
    for (const {schema, table, name} of tables) {
      const topic = topicName(settings.FRESHET_TOPIC_PREFIX, schema, table);
      this.#tableOf.set(topic, name);
      this.#topicOf.set(name, topic);
    }
  }

  async run(receiver: Receiver, signal: AbortSignal): Promise<void> {
    const watermarks = this.#watermarkTopic;
    const {FRESHET_CONSUMER_GROUP, FRESHET_KAFKA_SESSION_MS, FRESHET_BUFFER_BYTES} = this.#settings;
    const fetchBytes = Math.min(LARGEST_FETCH, FRESHET_BUFFER_BYTES / 4);
    const consumer = this.#kafka.consumer({
      groupId: FRESHET_CONSUMER_GROUP,
      sessionTimeout: FRESHET_KAFKA_SESSION_MS,
      rebalanceTimeout: FRESHET_KAFKA_SESSION_MS * 2,
      heartbeatInterval: FRESHET_KAFKA_SESSION_MS / BEATS_A_SESSION,
      maxWaitTimeInMs: 100,
      allowAutoTopicCreation: false,
      metadataMaxAge: METADATA_MS,
      // A crash is for the supervisor: it starts the stage again, with its own backoff.
      retry: {retries: 3, restartOnFailure: () => Promise.resolve(false)},
    });
    this.#consumer = consumer;
    const crashed = Promise.withResolvers<never>();
    consumer.on(consumer.events.CRASH, ({payload}) => crashed.reject(asKafkaError(payload.error)));
    const fetcher = await this.#newFetcher({
      settings: this.#settings,
      log: this.#log,
      limits: {most: fetchBytes, ofPartition: fetchBytes / 4},
      take: (place, records) => this.#take(receiver, place, records),
    });
    this.#fetcher = fetcher;
    const pause = (): void => consumer.pause([...this.#tableOf.keys()].map(topic => ({topic})));
    consumer.on(consumer.events.REBALANCING, () => this.#fetching.abort());
    consumer.on(consumer.events.GROUP_JOIN, ({payload}) => {
      this.#fetching.abort();
      const own = new AbortController();
      this.#fetching = own;
      pause();
      receiver.reassigned();
      // One after the other: each has the positions, and the fetcher, to itself.
      const assigned = this.#assigned.then(() =>
        own.signal.aborted ? [] : this.#takeOver(payload.memberAssignment),
      );
      this.#assigned = assigned;
      this.#read = Promise.all([assigned, this.#read]).then(([begins]) =>
        fetcher.run(begins, AbortSignal.any([signal, own.signal])),
      );
      this.#read.catch(error => crashed.reject(error));
    });
    const topics = [...this.#tableOf.keys(), watermarks];
    try {
      await this.#admin.connect();
      await consumer.connect();
      await consumer.subscribe({topics, fromBeginning: true});
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        eachBatch: async payload => {
          if (signal.aborted) return;
          try {
            if (payload.batch.topic === watermarks) await this.#watermarks(payload, receiver);
            else pause();
          } catch (error) {
            crashed.reject(error);
            throw error;
          }
        },
      });
      await Promise.race([aborted(signal), crashed.promise, this.#commitLoop(signal)]);
    } catch (error) {
      throw asKafkaError(error);
    }
  }

  /** Its library takes time and memory that the direct transport would have for nothing. */
  async #newFetcher(options: FetcherOptions): Promise<Fetcher> {
    const {Fetcher} = await import('./fetcher.ts');
    return new Fetcher(options);
  }

  async #take(receiver: Receiver, {topic, partition}: Place, records: FetchedRecords): Promise<void> {
    const table = this.#tableOf.get(topic);
    if (!table) return;
    const {first, next} = records;
    const gap = this.#positions.took(topic, partition, first, next);
    if (gap) throw await this.#lost(topic, [gap]);
    await receiver.accept({table, partition, first, messages: records.messages()});
  }

  /** Gives where the tables' partitions begin. */
  async #takeOver(assignment: Readonly<Record<string, readonly number[]>>): Promise<Begin[]> {
    this.#unseen = true;
    const {begins, gaps} = await this.#positions.takeOver(assignment);
    for (const [topic, own] of gaps) if (topic !== this.#watermarkTopic) throw await this.#lost(topic, own);
    return begins.filter(({topic}) => topic !== this.#watermarkTopic);
  }

  /**
   * Messages of a table are gone. It is read again, and only then does the group go on behind the gap: never without a
   * word. The sink begins anew, so that nothing of before is committed in the topic as it is now.
   */
  async #lost(topic: string, lost: readonly Gap[]): Promise<PipelineError> {
    const table = this.#tableOf.get(topic) ?? topic;
    const text = lost.map(one => one.text).join('; ');
    await this.#readAgain(table, `messages were lost: ${text}`);
    for (const {partition} of lost) this.#positions.forget(topic, partition);
    const offsets = lost.map(({partition, offset}) => ({topic, partition, offset: offset.toString()}));
    await this.#consumer?.commitOffsets(offsets);
    const on = lost.map(({partition, offset}) => `${partition} at ${offset}`).join(', ');
    return new PipelineError('kafka.offsets_lost', `${text}; it goes on in partition ${on}`, {table});
  }

  async #watermarks({batch, resolveOffset}: EachBatchPayload, receiver: Receiver): Promise<void> {
    await this.#assigned;
    const {topic, partition} = batch;
    for (const {value, offset: text} of batch.messages) {
      const offset = BigInt(text);
      if (this.#positions.took(topic, partition, offset, offset + 1n)) this.#unseen = true;
      if (value === null) continue;
      const watermark = WatermarkMessage.parse(JSON.parse(value.toString('utf8')));
      // What was not seen said of the ends: no more than what is in the topics by now.
      const isWhole = this.#unseen;
      const ends = isWhole ? await allEnds(this.#admin, this.#topicOf) : watermark.ends;
      this.#unseen = false;
      receiver.watermark({...watermark, ends}, isWhole);
      // Read again after a restart: the last one must be known even where nothing new comes.
      this.#positions.reached(topic, partition, offset);
    }
    resolveOffset(batch.lastOffset());
  }

  visible(table: string, partition: number, next: bigint): void {
    const topic = this.#topicOf.get(table);
    if (topic) this.#positions.done(topic, partition, next);
  }

  async elsewhere(tables: readonly string[]): Promise<(readonly [string, number, bigint])[]> {
    const topics = tables.flatMap(table => this.#topicOf.get(table) ?? []);
    const committed = await this.#positions.committed(topics);
    return committed.map(([topic, partition, next]) => [this.#tableOf.get(topic) ?? '', partition, next]);
  }

  async #commitLoop(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(COMMIT_EVERY_MS, undefined, {signal}).catch(() => {});
      await this.#commit();
      if (
        performance.now() - this.#committedAt >
        this.#settings.FRESHET_KAFKA_SESSION_MS * REFUSED_SESSIONS
      ) {
        throw new PipelineError(
          'kafka.unavailable',
          'the group takes no offsets of this sink: it joins anew',
        );
      }
    }
  }

  /** A commit that the group refuses (it is rebalancing) is no loss: the next owner applies those rows again. */
  async #commit(): Promise<void> {
    const offsets = this.#positions.take();
    if (offsets.length === 0) {
      this.#committedAt = performance.now();
      return;
    }
    failpoint('sink.before_commit');
    try {
      await this.#consumer?.commitOffsets(offsets);
      this.#committedAt = performance.now();
      failpoint('sink.after_commit');
    } catch (error) {
      this.#log.debug({error: String(error)}, 'offsets were not committed');
      this.#positions.giveBack(offsets);
    }
  }

  readonly rewind: Rewind = {
    park: table => {
      const topic = this.#topicOf.get(table);
      if (topic) this.#fetcher?.pause(topic);
    },
    again: (table, from) => {
      const topic = this.#topicOf.get(table);
      if (!topic) return;
      for (const [partition, offset] of from) {
        this.#positions.sentElsewhere(topic, partition);
        this.#fetcher?.seek({topic, partition}, offset);
      }
      this.#fetcher?.resume(topic);
    },
  };

  /** To be called when what was accepted is visible: commits, and leaves the group. */
  async close(): Promise<void> {
    this.#fetching.abort();
    await this.#commit();
    await this.#fetcher?.close();
    await this.#consumer?.disconnect().catch(() => {});
    await this.#admin.disconnect().catch(() => {});
  }
}
