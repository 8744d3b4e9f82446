import {
  AuthenticationError,
  type Broker,
  type Connection,
  ConnectionPool,
  MultipleErrors,
  metadataV9,
  ProtocolError,
  protocolErrors,
  protocolErrorsCodesById,
  type Reader,
  type Writer,
} from '@platformatic/kafka';
import {PipelineError} from '../failures.ts';
import type {Log} from '../observe/log.ts';
import {backoff} from '../retry.ts';
import type {Settings} from '../settings/settings.ts';
import {tlsFiles} from '../source/postgres.ts';
import {asKafkaError} from './client.ts';
import {type Place, placeOf} from './place.ts';

/** So often something is tried, with what is between, before the stage is started again. */
const ATTEMPTS = 8;

const MECHANISMS = {
  plain: 'PLAIN',
  'scram-sha-256': 'SCRAM-SHA-256',
  'scram-sha-512': 'SCRAM-SHA-512',
} as const;

/** A refusal of the brokers, by the name that Kafka gives it. */
export class Refusal extends Error {
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
export function asRefusal(error: unknown): unknown {
  const all: unknown[] = error instanceof MultipleErrors ? error.errors : [error];
  if (all.some(one => one instanceof AuthenticationError)) return new Refusal('SASL_AUTHENTICATION_FAILED');
  const id: unknown = all.find(one => one instanceof ProtocolError)?.apiId;
  return typeof id === 'string' ? new Refusal(id) : error;
}

/** Can it be otherwise at the next attempt? What is no refusal, nor ours, is a failure of the connection. */
export const isPassing = (error: unknown): boolean =>
  error instanceof Refusal
    ? protocolErrors[error.type]?.canRetry === true
    : !(error instanceof PipelineError);

/** Writes what a request has for each partition, as Kafka wants it: topic by topic. */
export function appendByTopic<T extends Place>(
  writer: Writer,
  places: readonly T[],
  append: (writer: Writer, place: T) => void,
): Writer {
  return writer.appendArray(
    [...Map.groupBy(places, ({topic}) => topic)],
    (outer, [topic, own]) => {
      outer.appendString(topic, false).appendArray(own, append, false, false);
    },
    false,
    false,
  );
}

/** Reads what an answer has for each partition. */
export function readByTopic<T>(reader: Reader, read: (topic: string) => T): T[] {
  const topics = reader.readArray(
    () => {
      const topic = reader.readString(false);
      return reader.readArray(() => read(topic), false, false);
    },
    false,
    false,
  );
  return topics.flat();
}

/**
 * Connections to the brokers, and who of them leads what: for the requests that are many and large. Connections, TLS and
 * SASL are @platformatic/kafka's; what goes over them is encoded here.
 */
export class Brokers {
  readonly #settings: Settings;
  readonly #bootstrap: readonly Broker[];
  #pool: ConnectionPool;
  /** 'topic/partition' → the broker that leads it */
  readonly #leaders = new Map<string, Broker>();
  /** 'host:port' → the one object of the broker: partitions are grouped by it. */
  readonly #known = new Map<string, Broker>();
  readonly #log: Log;

  constructor(settings: Settings, log: Log) {
    this.#settings = settings;
    this.#log = log;
    this.#bootstrap = settings.FRESHET_KAFKA_BROKERS.map(broker => {
      const colon = broker.lastIndexOf(':');
      return {host: broker.slice(0, colon), port: Number(broker.slice(colon + 1))};
    });
    this.#pool = this.#newPool();
  }

  any(): Promise<Connection> {
    return this.#pool.getFirstAvailable([...this.#bootstrap]);
  }

  to(broker: Broker): Promise<Connection> {
    return this.#pool.get(broker);
  }

  /** By the broker that leads them; asks for those that are not known. */
  async byLeader<T extends Place>(places: Iterable<T>): Promise<Map<Broker, T[]>> {
    const all = [...places];
    await this.#findLeaders(all);
    return Map.groupBy(all, place => {
      const leader = this.#leaders.get(placeOf(place.topic, place.partition));
      if (!leader) throw new Refusal('LEADER_NOT_AVAILABLE', place.topic);
      return leader;
    });
  }

  async #findLeaders(places: readonly Place[]): Promise<void> {
    const unknown = new Set<string>();
    for (const place of places)
      if (!this.#leaders.has(placeOf(place.topic, place.partition))) unknown.add(place.topic);
    if (unknown.size === 0) return;
    const {brokers, topics} = await metadataV9.api.async(await this.any(), [...unknown], false);
    const byId = new Map(brokers.map(({nodeId, host, port}) => [nodeId, this.#broker(host, port)]));
    for (const {name, partitions} of topics) {
      for (const {partitionIndex: partition, leaderId} of partitions) {
        const leader = byId.get(leaderId);
        if (name !== null && leader) this.#leaders.set(placeOf(name, partition), leader);
      }
    }
  }

  #broker(host: string, port: number): Broker {
    const name = `${host}:${port}`;
    const broker = this.#known.get(name) ?? {host, port};
    this.#known.set(name, broker);
    return broker;
  }

  /** Runs the work again after an outage, on new connections, and asking again who leads what. */
  async insist<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await work();
      } catch (thrown) {
        if (signal.aborted) throw asRefusal(thrown);
        await this.recover(thrown, attempt, signal);
      }
    }
  }

  /** Throws what cannot be otherwise at the next attempt, or was tried often enough; waits before it where it can. */
  async recover(thrown: unknown, attempt: number, signal: AbortSignal): Promise<void> {
    const error = asRefusal(thrown);
    if (!isPassing(error) || attempt + 1 >= ATTEMPTS) throw error;
    this.#log.warn({attempt}, `${asKafkaError(error).message}; it is tried again`);
    this.#leaders.clear();
    if (!(error instanceof Refusal)) {
      // What is behind on a connection that failed, or did not answer, is not known.
      await this.close();
      this.#pool = this.#newPool();
    }
    await backoff(attempt, signal);
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

  async close(): Promise<void> {
    await this.#pool.close().catch(() => {});
  }
}
