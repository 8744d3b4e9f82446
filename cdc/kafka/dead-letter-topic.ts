import type {Kafka, Producer} from 'kafkajs';
import type {Settings} from '../settings/settings.ts';
import {asKafkaError} from './client.ts';
import type {InMessage} from './message.ts';
import {deadLetterTopic} from './topics.ts';
import type {DeadLetterTopic} from './transport.ts';

/** The topic of messages that could not be applied: as they came, with more headers. It connects when one comes. */
export class KafkaDeadLetterTopic implements DeadLetterTopic {
  readonly #kafka: Kafka;
  readonly #topic: string;
  #producer: Producer | undefined;

  constructor(kafka: Kafka, settings: Settings) {
    this.#kafka = kafka;
    this.#topic = deadLetterTopic(settings.FRESHET_TOPIC_PREFIX);
  }

  async send({key, value, headers}: InMessage, facts: Readonly<Record<string, string>>): Promise<string> {
    try {
      if (!this.#producer) {
        const producer = this.#kafka.producer({allowAutoTopicCreation: false});
        await producer.connect();
        this.#producer = producer;
      }
      const [sent] = await this.#producer.send({
        topic: this.#topic,
        acks: -1,
        messages: [{partition: 0, key, value, headers: {...headers, ...facts}}],
      });
      return sent?.baseOffset ?? '-1';
    } catch (error) {
      throw asKafkaError(error);
    }
  }

  async close(): Promise<void> {
    await this.#producer?.disconnect().catch(() => {});
  }
}
