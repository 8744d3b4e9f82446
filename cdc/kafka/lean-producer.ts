import {
  AuthenticationError,
  type Broker,
  type Connection,
  ConnectionPool,
  createAPI,
  initProducerIdV2,
  MultipleErrors,
  metadataV9,
  ProtocolError,
  protocolErrors,
  protocolErrorsCodesById,
  type Reader,
  Writer,
} from '@platformatic/kafka';
import {backoff} from '../retry.ts';
import type {Settings} from '../settings/settings.ts';
import {tlsFiles} from '../source/postgres.ts';
import type {Outgoing, Placed, Producer} from './producer.ts';
import {RecordBatch} from './record-batch.ts';

const ALL_IN_SYNC = -1;
const TIMEOUT_MS = 30_000;
/** So often a send is tried, with what is between, before the stage is started again. */
const ATTEMPTS = 8;
/** They begin anew behind the largest 32-bit number. */
const SEQUENCES = 2 ** 31;
const NEVER = new AbortController().signal;

const MECHANISMS = {
  plain: 'PLAIN',
  'scram-sha-256': 'SCRAM-SHA-256',
  'scram-sha-512': 'SCRAM-SHA-512',
} as const;

/** Records of one partition, as bytes: each attempt sends the same, so a broker that has them takes them no second time. */
interface Part {
  readonly topic: string;
  readonly partition: number;
  readonly sequence: number;
  readonly bytes: Buffer;
  readonly count: number;
}

interface Answer {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly baseOffset: bigint;
}

/** A refusal of the brokers, by the name that Kafka gives it. */
class Refusal extends Error {
  readonly type: string;
  readonly topic: string | undefined;
  constructor(type: string, topic?: string) {
    super(protocolErrors[type]?.message ?? type);
    this.type = type;
    this.topic = topic;
  }
  static byCode(code: number, topic: string): Refusal {
    const byCode: Readonly<Record<string, string>> = protocolErrorsCodesById;
    return new Refusal(byCode[code] ?? `error ${code}`, topic);
  }
}

/** What the library throws: a refusal where the brokers said something, otherwise as it is. */
function asRefusal(error: unknown): unknown {
  const all: unknown[] = error instanceof MultipleErrors ? error.errors : [error];
  if (all.some(one => one instanceof AuthenticationError)) return new Refusal('SASL_AUTHENTICATION_FAILED');
  const id: unknown = all.find(one => one instanceof ProtocolError)?.apiId;
  return typeof id === 'string' ? new Refusal(id) : error;
}

/** Can it be otherwise at the next attempt? What is no refusal is a failure of the connection. */
const isPassing = (error: unknown): boolean =>
  !(error instanceof Refusal) || protocolErrors[error.type]?.canRetry === true;

/**
 * Version 7, which brokers from 2.1 on take (https://kafka.apache.org/protocol#The_Messages_Produce): record batches as
 * they are, with no object for a message.
 */
const produce = createAPI<[parts: readonly Part[]], Answer[]>(
  0,
  7,
  (parts: readonly Part[]) =>
    Writer.create()
      .appendString(null, false) // no transaction
      .appendInt16(ALL_IN_SYNC)
      .appendInt32(TIMEOUT_MS)
      .appendArray(
        [...Map.groupBy(parts, ({topic}) => topic)],
        (writer, [topic, own]) => {
          writer.appendString(topic, false).appendArray(
            own,
            (inner, {partition, bytes}) => {
              inner.appendInt32(partition).appendBytes(bytes, false);
            },
            false,
            false,
          );
        },
        false,
        false,
      ),
  (_correlationId, _apiKey, _apiVersion, reader: Reader) =>
    reader
      .readArray(
        () => {
          const topic = reader.readString(false);
          return reader.readArray(
            () => {
              const [partition, errorCode, baseOffset] = [
                reader.readInt32(),
                reader.readInt16(),
                reader.readInt64(),
              ];
              reader.skip(16); // log append time, log start offset
              return {topic, partition, errorCode, baseOffset};
            },
            false,
            false,
          );
        },
        false,
        false,
      )
      .flat(),
  false,
  false,
);

/** Encodes record batches itself, and leaves connections, TLS and SASL to @platformatic/kafka. */
export class LeanProducer implements Producer<RecordBatch> {
  readonly #settings: Settings;
  readonly #bootstrap: readonly Broker[];
  #pool: ConnectionPool;
  /** 'topic/partition' → the broker that leads it */
  readonly #leaders = new Map<string, Broker>();
  /** 'topic/partition' → number of its next record */
  readonly #sequences = new Map<string, number>();
  #producer = {producerId: -1n, producerEpoch: -1};

  private constructor(settings: Settings) {
    this.#settings = settings;
    this.#bootstrap = settings.FRESHET_KAFKA_BROKERS.map(broker => {
      const colon = broker.lastIndexOf(':');
      return {host: broker.slice(0, colon), port: Number(broker.slice(colon + 1))};
    });
    this.#pool = this.#newPool();
  }

  static async connect(settings: Settings): Promise<LeanProducer> {
    const made = new LeanProducer(settings);
    try {
      await made.#insist(async () => {
        const {producerId, producerEpoch} = await initProducerIdV2.api.async(
          await made.#any(),
          null,
          TIMEOUT_MS,
        );
        made.#producer = {producerId, producerEpoch};
      });
      return made;
    } catch (error) {
      await made.close();
      throw error;
    }
  }

  records(): RecordBatch {
    return new RecordBatch();
  }

  async send(outgoing: readonly Outgoing<RecordBatch>[]): Promise<Placed[]> {
    const placed: Placed[] = [];
    /** 'topic/partition' → what is not there yet */
    const parts = new Map<string, Part>();
    for (const {topic, partition, records} of outgoing) {
      const place = `${topic}/${partition}`;
      const sequence = this.#sequences.get(place) ?? 0;
      const bytes = records.seal({...this.#producer, sequence}, Date.now());
      parts.set(place, {topic, partition, sequence, bytes, count: records.count});
    }
    let attempts = 0;
    await this.#insist(async () => {
      attempts += 1;
      await this.#findLeaders(parts);
      const groups = Map.groupBy(parts, ([place, {topic}]) => this.#leader(place, topic));
      const answers = await Promise.allSettled(
        Array.from(groups, async ([leader, own]) =>
          produce.async(
            await this.#pool.get(leader),
            own.map(([, part]) => part),
          ),
        ),
      );
      const failures: unknown[] = [];
      for (const answer of answers) {
        if (answer.status === 'rejected') failures.push(answer.reason);
        else
          for (const one of answer.value) {
            const place = `${one.topic}/${one.partition}`;
            const part = parts.get(place);
            if (!part) continue;
            if (one.errorCode !== 0) failures.push(Refusal.byCode(one.errorCode, one.topic));
            else {
              placed.push({topic: one.topic, partition: one.partition, offset: one.baseOffset});
              this.#sequences.set(place, (part.sequence + part.count) % SEQUENCES);
              parts.delete(place);
            }
          }
      }
      // What cannot pass counts before what can.
      const failure = failures.find(one => !isPassing(asRefusal(one))) ?? failures[0];
      if (failure !== undefined) throw failure;
      if (parts.size > 0) throw new Error(`no answer for ${parts.size} partitions`);
    });
    // What an attempt that failed has given to a connection may still be on its way.
    if (attempts === 1) for (const {records} of outgoing) records.release();
    return placed;
  }

  async close(): Promise<void> {
    await this.#pool.close().catch(() => {});
  }

  /** Once more after an outage: on new connections, and asking again who leads what. */
  async #insist(work: () => Promise<void>): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work();
      } catch (thrown) {
        const error = asRefusal(thrown);
        if (attempt + 1 >= ATTEMPTS || !isPassing(error)) throw error;
        this.#leaders.clear();
        if (!(error instanceof Refusal)) {
          // What is behind on a connection that failed, or did not answer, is not known.
          await this.close();
          this.#pool = this.#newPool();
        }
        await backoff(attempt, NEVER);
      }
    }
  }

  #newPool(): ConnectionPool {
    const {FRESHET_SILENCE_MS: silence, FRESHET_TOPIC_PREFIX: prefix} = this.#settings;
    const {FRESHET_KAFKA_SASL_MECHANISM: mechanism, FRESHET_KAFKA_SASL_USERNAME: username} = this.#settings;
    const pool = new ConnectionPool(`freshet-${prefix}`, {
      connectTimeout: Math.min(10_000, silence / 2),
      requestTimeout: silence / 2,
      ...(this.#settings.FRESHET_KAFKA_TLS && {tls: tlsFiles(this.#settings, 'KAFKA')}),
      ...(mechanism !== 'none' && {
        sasl: {
          mechanism: MECHANISMS[mechanism],
          username: username ?? '',
          password: this.#settings.FRESHET_KAFKA_SASL_PASSWORD ?? '',
        },
      }),
    });
    // The library hears of a connection's first error; Node ends the process by one that nobody hears of.
    pool.on('connecting', ({connection}) => connection.on('error', () => {}));
    return pool;
  }

  #any(): Promise<Connection> {
    return this.#pool.getFirstAvailable([...this.#bootstrap]);
  }

  #leader(place: string, topic: string): Broker {
    const leader = this.#leaders.get(place);
    if (!leader) throw new Refusal('LEADER_NOT_AVAILABLE', topic);
    return leader;
  }

  async #findLeaders(parts: ReadonlyMap<string, Part>): Promise<void> {
    const unknown = new Set<string>();
    for (const [place, {topic}] of parts) if (!this.#leaders.has(place)) unknown.add(topic);
    if (unknown.size === 0) return;
    const {brokers, topics} = await metadataV9.api.async(await this.#any(), [...unknown], false);
    const byId = new Map(brokers.map(({nodeId, host, port}) => [nodeId, {host, port}]));
    for (const {name, partitions} of topics) {
      for (const {partitionIndex, leaderId} of partitions) {
        const leader = byId.get(leaderId);
        if (leader) this.#leaders.set(`${name}/${partitionIndex}`, leader);
      }
    }
  }
}
