import {setTimeout as sleep} from 'node:timers/promises';
import type {Admin, Consumer, EachBatchPayload, Kafka, KafkaMessage} from 'kafkajs';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {asKafkaError} from './client.ts';
import type {Ends, InMessage} from './message.ts';
import {endsOf, topicName, watermarkTopic} from './topics.ts';
import type {Receiver, Rewind, Subscriber} from './transport.ts';
import {WatermarkMessage} from './watermark-message.ts';

const COMMIT_EVERY_MS = 500;
/**
 * kafkajs beats by the wall clock: set back by an hour, it lets the group forget this member for an hour. Whom the
 * group has refused for so many sessions joins anew.
 */
const REFUSED_SESSIONS = 2;
/** The consumer also beats while it waits for room, so no insert is too long for the session. */
const BEATS_A_SESSION = 5;

/** Decoded messages take several times as much memory. */
const LARGEST_FETCH = 4 << 20;
/** So soon it is noticed that a topic has more partitions. */
const METADATA_MS = 10_000;

/** Asks capture to read a table again; resolves when that will be done, whatever fails from then on. */
export type ReadAgain = (table: string, reason: string) => Promise<void>;

/** A sink's membership in the consumer group. Offsets are committed when the rows are visible, and never reset. */
export class KafkaSubscriber implements Subscriber {
  readonly #kafka: Kafka;
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #tableOf = new Map<string, string>();
  readonly #topicOf = new Map<string, string>();
  readonly #watermarkTopic: string;
  readonly #admin: Admin;
  /** 'topic/partition' of those that are ours → the offset that must come next. */
  readonly #expected = new Map<string, bigint>();
  /** Of the same → where the group stood when they became ours. */
  readonly #base = new Map<string, bigint>();
  readonly #readAgain: ReadAgain;
  /** Resolves when it is known where the partitions of the last assignment begin. */
  #assigned: Promise<void> = Promise.resolve();
  /** Watermarks before the next one are lost, or were told to another member: what they said of the ends is not known. */
  #unseen = true;
  readonly #toCommit = new Map<string, {topic: string; partition: number; offset: string}>();
  /** When the group last took offsets (performance.now). */
  #committedAt = performance.now();
  #consumer: Consumer | undefined;

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
      // What lies with kafkajs is in no budget: a fetch from each broker. One message above is still delivered whole.
      maxBytesPerPartition: fetchBytes / 4,
      maxBytes: fetchBytes,
      allowAutoTopicCreation: false,
      metadataMaxAge: METADATA_MS,
      // A crash is for the supervisor: it starts the stage again, with its own backoff.
      retry: {retries: 3, restartOnFailure: () => Promise.resolve(false)},
    });
    this.#consumer = consumer;
    const crashed = Promise.withResolvers<never>();
    consumer.on(consumer.events.CRASH, ({payload}) => crashed.reject(asKafkaError(payload.error)));
    consumer.on(consumer.events.GROUP_JOIN, ({payload}) => {
      this.#assigned = this.#takeOver(payload.memberAssignment);
      this.#assigned.catch(error => crashed.reject(error));
    });
    const stopped = new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), {once: true});
    });
    const topics = [...this.#tableOf.keys(), watermarks];
    try {
      await this.#admin.connect();
      await consumer.connect();
      await consumer.subscribe({topics, fromBeginning: true});
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        partitionsConsumedConcurrently: 3,
        eachBatch: async payload => {
          if (signal.aborted) return;
          try {
            if (payload.batch.topic === watermarks) await this.#watermarks(payload, receiver);
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

  async #batch(payload: EachBatchPayload, receiver: Receiver): Promise<void> {
    const {batch, heartbeat, resolveOffset} = payload;
    let done = false;
    const taking = this.#take(payload, receiver).finally(() => {
      done = true;
    });
    taking.catch(() => {}); // awaited below
    while (!done) {
      await Promise.race([taking, sleep(this.#settings.FRESHET_KAFKA_SESSION_MS / BEATS_A_SESSION)]);
      await heartbeat();
    }
    // Behind a seek it would go on where this batch ended.
    if ((await taking) && !payload.isStale()) resolveOffset(batch.lastOffset());
  }

  /** False where the batch is not for us any more. */
  async #take({batch, isStale, isRunning}: EachBatchPayload, receiver: Receiver): Promise<boolean> {
    await this.#assigned;
    const table = this.#tableOf.get(batch.topic);
    if (!table || !isRunning() || isStale() || batch.messages.length === 0) return false;
    const {topic, partition, messages} = batch;
    const place = `${topic}/${partition}`;
    const first = BigInt(messages[0]!.offset);
    const due = this.#expected.get(place);
    if (due !== undefined && first !== due) {
      throw await this.#lost(topic, [
        {partition, offset: first, text: `${place} goes on at ${first}, where ${due} was due`},
      ]);
    }
    this.#expected.set(place, BigInt(messages.at(-1)!.offset) + 1n);
    await receiver.accept({table, partition, messages: messages.map(inMessage)});
    return true;
  }

  /**
   * Where the group stands in the partitions that are ours now. What is not in the log any more is lost: kafkajs would
   * move on without a word (and says so by a negative offset, where it was faster).
   */
  async #takeOver(assignment: Readonly<Record<string, readonly number[]>>): Promise<void> {
    for (const own of [this.#expected, this.#base, this.#toCommit]) own.clear();
    this.#unseen = true;
    const committed = await this.#committed(Object.keys(assignment));
    for (const [topic, partitions] of Object.entries(assignment)) {
      const kept = await this.#admin.fetchTopicOffsets(topic);
      const lost: {partition: number; offset: bigint; text: string}[] = [];
      for (const {partition, low: first, high: end} of kept.filter(one =>
        partitions.includes(one.partition),
      )) {
        const [low, high] = [BigInt(first), BigInt(end)];
        const place = `${topic}/${partition}`;
        const next = committed.get(place);
        const begin = next ?? low;
        // Without an offset it begins with the first message there ever was, or that is not there any more.
        if (next === undefined ? low > 0n : next < low || next > high) {
          const stands = next === undefined || next < 0n ? 'has no offset' : `stands at ${next}`;
          lost.push({
            partition,
            offset: low,
            text: `${place} holds ${low} to ${high}, and the group ${stands}`,
          });
          continue;
        }
        if (next === undefined && high > low) this.#log.info({place}, `${place} is read from its beginning`);
        this.#expected.set(place, begin);
        this.#base.set(place, begin);
        // A group that stands somewhere can be told from one that was lost, and capture sees that the partition is taken.
        if (next === undefined) {
          const key = topic === this.#watermarkTopic ? topic : place;
          this.#toCommit.set(key, {topic, partition, offset: begin.toString()});
        }
      }
      if (lost.length > 0 && topic !== this.#watermarkTopic) throw await this.#lost(topic, lost);
    }
  }

  /**
   * Messages of a table are gone. It is read again, and only then does the group go on behind the gap: never without a
   * word. The sink begins anew, so that nothing of before is committed in the topic as it is now.
   */
  async #lost(
    topic: string,
    lost: readonly {partition: number; offset: bigint; text: string}[],
  ): Promise<PipelineError> {
    const table = this.#tableOf.get(topic) ?? topic;
    const text = lost.map(one => one.text).join('; ');
    await this.#readAgain(table, `messages were lost: ${text}`);
    for (const {partition} of lost) {
      this.#base.delete(`${topic}/${partition}`);
      this.#toCommit.delete(`${topic}/${partition}`);
    }
    const offsets = lost.map(({partition, offset}) => ({topic, partition, offset: offset.toString()}));
    await this.#consumer?.commitOffsets(offsets);
    const on = lost.map(({partition, offset}) => `${partition} at ${offset}`).join(', ');
    return new PipelineError('kafka.offsets_lost', `${text}; it goes on in partition ${on}`, {table});
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

  async #watermarks({batch, resolveOffset}: EachBatchPayload, receiver: Receiver): Promise<void> {
    await this.#assigned;
    const place = `${batch.topic}/${batch.partition}`;
    for (const {value, offset} of batch.messages) {
      if (BigInt(offset) !== (this.#expected.get(place) ?? BigInt(offset))) this.#unseen = true;
      this.#expected.set(place, BigInt(offset) + 1n);
      if (value === null) continue;
      const watermark = WatermarkMessage.parse(JSON.parse(value.toString('utf8')));
      // What was not seen said of the ends: no more than what is in the topics by now.
      const ends = this.#unseen ? await this.#ends() : watermark.ends;
      this.#unseen = false;
      receiver.watermark({...watermark, ends});
      // Read again after a restart: the last one must be known even where nothing new comes.
      this.#toCommit.set(batch.topic, {topic: batch.topic, partition: 0, offset});
    }
    resolveOffset(batch.lastOffset());
  }

  async #ends(): Promise<Ends> {
    const ends: Record<string, Record<number, string>> = {};
    for (const [topic, table] of this.#tableOf)
      ends[table] = Object.fromEntries(
        (await endsOf(this.#admin, topic)).map((end, i) => [i, end.toString()]),
      );
    return ends;
  }

  visible(table: string, partition: number, next: bigint): void {
    const topic = this.#topicOf.get(table);
    const place = `${topic}/${partition}`;
    // What another member has by now, or had before us, is for it to commit: the group never goes backwards.
    if (topic && next > (this.#base.get(place) ?? next))
      this.#toCommit.set(place, {topic, partition, offset: next.toString()});
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
    const offsets = [...this.#toCommit.values()];
    if (offsets.length === 0) {
      this.#committedAt = performance.now();
      return;
    }
    this.#toCommit.clear();
    failpoint('sink.before_commit');
    try {
      await this.#consumer?.commitOffsets(offsets);
      this.#committedAt = performance.now();
      failpoint('sink.after_commit');
    } catch (error) {
      this.#log.debug({error: String(error)}, 'offsets were not committed');
      for (const offset of offsets) {
        const place =
          offset.topic === this.#watermarkTopic ? offset.topic : `${offset.topic}/${offset.partition}`;
        const ours = this.#base.has(`${offset.topic}/${offset.partition}`);
        if (ours && !this.#toCommit.has(place)) this.#toCommit.set(place, offset);
      }
    }
  }

  readonly rewind: Rewind = {
    park: table => {
      const topic = this.#topicOf.get(table);
      if (topic) this.#consumer?.pause([{topic}]);
    },
    again: (table, from) => {
      const topic = this.#topicOf.get(table);
      if (!topic) return;
      for (const [partition, offset] of from) {
        this.#expected.delete(`${topic}/${partition}`);
        this.#consumer?.seek({topic, partition, offset: offset.toString()});
      }
      this.#consumer?.resume([{topic}]);
    },
  };

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
