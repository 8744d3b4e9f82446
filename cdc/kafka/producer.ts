import type {Kafka} from 'kafkajs';
import {ZSTD} from '../compression.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import type {OutMessage} from './message.ts';

/** What a topic takes: a message without its table. */
export type Sendable = Pick<OutMessage, 'key' | 'value' | 'headers'>;

/** Messages for one partition, in order, as the producer wants them: they are not held besides. */
export interface Records {
  readonly count: number;
  add(message: Sendable): void;
}

/** Where the first of some messages came to lie; they lie behind each other. */
export interface Placed {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

export interface Outgoing<R extends Records = Records> {
  readonly topic: string;
  readonly partition: number;
  readonly records: R;
}

/** Writes messages so that none is there twice and those of a partition keep their order. */
export interface Producer<R extends Records = Records> {
  /** None yet. */
  records(): R;
  /**
   * One call at a time, each partition once. Resolves when all in-sync replicas have the messages. Whoever goes on where
   * it rejects does so by a new producer.
   */
  send(outgoing: readonly Outgoing<R>[]): Promise<Placed[]>;
  close(): Promise<void>;
}

export const ALL_IN_SYNC = -1;
export const TIMEOUT_MS = 30_000;

/** As they were given. */
export class MessageList implements Records {
  readonly messages: Sendable[] = [];
  get count(): number {
    return this.messages.length;
  }
  add(message: Sendable): void {
    this.messages.push(message);
  }
}

/** The producers that can be set: each is the same to whoever sends. */
export const PRODUCERS: Readonly<
  Record<
    Settings['FRESHET_KAFKA_PRODUCER'],
    (settings: Settings, kafka: Kafka, log: Log) => Promise<Producer>
  >
> = {
  // Loaded here: its library takes time and memory that the direct transport would have for nothing.
  lean: async (settings, _kafka, log) =>
    (await import('./lean-producer.ts')).LeanProducer.connect(settings, log),
  kafkajs: async (settings, kafka) => {
    const compression = settings.FRESHET_KAFKA_COMPRESSION === 'zstd' ? ZSTD : 0;
    const producer = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      // kafkajs retries an idempotent send for ever by default; a restart of the stage is as safe and is seen.
      retry: {retries: 8, initialRetryTime: 100, maxRetryTime: 5_000},
    });
    await producer.connect();
    const own: Producer<MessageList> = {
      records: () => new MessageList(),
      async send(outgoing) {
        const byTopic = Map.groupBy(outgoing, ({topic}) => topic);
        const topicMessages = Array.from(byTopic, ([topic, places]) => ({
          topic,
          messages: places.flatMap(({partition, records}) =>
            records.messages.map(one => ({...one, partition})),
          ),
        }));
        const sent = await producer.sendBatch({
          topicMessages,
          acks: ALL_IN_SYNC,
          timeout: TIMEOUT_MS,
          compression,
        });
        return sent.flatMap(({topicName: topic, partition, baseOffset}) =>
          baseOffset === undefined ? [] : [{topic, partition, offset: BigInt(baseOffset)}],
        );
      },
      close: () => producer.disconnect(),
    };
    return own;
  },
};
