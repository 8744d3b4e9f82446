import {createAPI, initProducerIdV2, type Reader, Writer} from '@platformatic/kafka';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {appendByTopic, asRefusal, Brokers, isPassing, Refusal, readByTopic} from './brokers.ts';
import {placeOf} from './place.ts';
import {ALL_IN_SYNC, type Outgoing, type Placed, type Producer, TIMEOUT_MS} from './producer.ts';
import {RecordBatch} from './record-batch.ts';

/** They begin anew behind the largest 32-bit number. */
const SEQUENCES = 2 ** 31;
const NEVER = new AbortController().signal;

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

/**
 * Version 7, which brokers from 2.1 on take (https://kafka.apache.org/protocol#The_Messages_Produce): record batches as
 * they are, with no object for a message.
 */
const produce = createAPI<[parts: readonly Part[]], Answer[]>(
  0,
  7,
  (parts: readonly Part[]) => {
    const writer = Writer.create()
      .appendString(null, false) // no transaction
      .appendInt16(ALL_IN_SYNC)
      .appendInt32(TIMEOUT_MS);
    return appendByTopic(writer, parts, (own, {partition, bytes}) => {
      own.appendInt32(partition).appendBytes(bytes, false);
    });
  },
  (_correlationId, _apiKey, _apiVersion, reader: Reader) =>
    readByTopic(reader, topic => {
      const [partition, errorCode, baseOffset] = [reader.readInt32(), reader.readInt16(), reader.readInt64()];
      reader.skip(16); // log append time, log start offset
      return {topic, partition, errorCode, baseOffset};
    }),
  false,
  false,
);

/** Encodes record batches itself, and sends them with no object for a message. */
export class LeanProducer implements Producer<RecordBatch> {
  readonly #brokers: Brokers;
  readonly #compresses: boolean;
  /** 'topic/partition' → number of its next record */
  readonly #sequences = new Map<string, number>();
  #producer = {producerId: -1n, producerEpoch: -1};

  private constructor(settings: Settings, log: Log) {
    this.#brokers = new Brokers(settings, log);
    this.#compresses = settings.FRESHET_KAFKA_COMPRESSION === 'zstd';
  }

  static async connect(settings: Settings, log: Log): Promise<LeanProducer> {
    const made = new LeanProducer(settings, log);
    const brokers = made.#brokers;
    try {
      await brokers.insist(async () => {
        const {producerId, producerEpoch} = await initProducerIdV2.api.async(
          await brokers.any(),
          null,
          TIMEOUT_MS,
        );
        made.#producer = {producerId, producerEpoch};
      }, NEVER);
      return made;
    } catch (error) {
      await made.close();
      throw error;
    }
  }

  records(): RecordBatch {
    return new RecordBatch(this.#compresses);
  }

  async send(outgoing: readonly Outgoing<RecordBatch>[]): Promise<Placed[]> {
    const placed: Placed[] = [];
    /** 'topic/partition' → what is not there yet */
    const parts = new Map<string, Part>();
    for (const {topic, partition, records} of outgoing) {
      const place = placeOf(topic, partition);
      const sequence = this.#sequences.get(place) ?? 0;
      const bytes = records.seal({...this.#producer, sequence}, Date.now());
      parts.set(place, {topic, partition, sequence, bytes, count: records.count});
    }
    let attempts = 0;
    await this.#brokers.insist(async () => {
      attempts += 1;
      const groups = await this.#brokers.byLeader(parts.values());
      const answers = await Promise.allSettled(
        Array.from(groups, async ([leader, own]) => produce.async(await this.#brokers.to(leader), own)),
      );
      const failures: unknown[] = [];
      for (const answer of answers) {
        if (answer.status === 'rejected') failures.push(answer.reason);
        else
          for (const one of answer.value) {
            const place = placeOf(one.topic, one.partition);
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
    }, NEVER);
    // What an attempt that failed has given to a connection may still be on its way.
    if (attempts === 1) for (const {records} of outgoing) records.release();
    return placed;
  }

  async close(): Promise<void> {
    await this.#brokers.close();
  }
}
