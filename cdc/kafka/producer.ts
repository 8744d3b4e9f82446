import type {Kafka} from 'kafkajs';
import type {Settings} from '../settings/settings.ts';
import type {OutMessage} from './message.ts';

/** Where the first of some messages came to lie; they lie behind each other. */
export interface Placed {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
}

/** topic → its messages, in order */
export type Outgoing = ReadonlyMap<
  string,
  readonly Pick<OutMessage, 'partition' | 'key' | 'value' | 'headers'>[]
>;

/** Writes messages so that none is there twice and those of a partition keep their order. */
export interface Producer {
  /** One call at a time. Resolves when all in-sync replicas have the messages. */
  send(messages: Outgoing): Promise<Placed[]>;
  close(): Promise<void>;
}

const ALL_IN_SYNC = -1;
const TIMEOUT_MS = 30_000;

/** The producers that can be set: each is the same to whoever sends. */
export const PRODUCERS: Readonly<
  Record<Settings['FRESHET_KAFKA_PRODUCER'], (settings: Settings, kafka: Kafka) => Promise<Producer>>
> = {
  // Loaded here: its library takes time and memory that a sink, or the direct transport, would have for nothing.
  lean: async settings => (await import('./lean-producer.ts')).LeanProducer.connect(settings),
  kafkajs: async (_settings, kafka) => {
    const producer = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      // kafkajs retries an idempotent send for ever by default; a restart of the stage is as safe and is seen.
      retry: {retries: 8, initialRetryTime: 100, maxRetryTime: 5_000},
    });
    await producer.connect();
    return {
      async send(messages) {
        const topicMessages = Array.from(messages, ([topic, own]) => ({topic, messages: [...own]}));
        const sent = await producer.sendBatch({topicMessages, acks: ALL_IN_SYNC, timeout: TIMEOUT_MS});
        return sent.flatMap(({topicName: topic, partition, baseOffset}) =>
          baseOffset === undefined ? [] : [{topic, partition, offset: BigInt(baseOffset)}],
        );
      },
      close: () => producer.disconnect(),
    };
  },
};
