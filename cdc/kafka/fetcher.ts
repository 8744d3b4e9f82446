import {setTimeout as sleep} from 'node:timers/promises';
import {type Broker, createAPI, type Reader, Writer} from '@platformatic/kafka';
import {Bell} from '../bell.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {appendByTopic, Brokers, Refusal, readByTopic} from './brokers.ts';
import type {Begin} from './group-positions.ts';
import {type Place, placeOf} from './place.ts';
import {FetchedRecords} from './read-records.ts';

/** A broker with nothing new answers after so long. */
const WAIT_MS = 250;
/** Broker and sink do something for each partition in each fetch: with many of them it waits until there is more. */
const REST_MS = 0.05;

/** Where a partition is read, and how far. */
interface Position extends Place {
  offset: bigint;
  /** Rises when it is sent elsewhere: what was fetched before is not for it any more. */
  turn: number;
}

interface Answer extends Place {
  readonly errorCode: number;
  readonly records: Buffer;
}

interface Limits {
  readonly most: number;
  readonly ofPartition: number;
}

/**
 * Version 4, which brokers from 0.11 on take (https://kafka.apache.org/protocol#The_Messages_Fetch). The records come
 * as bytes.
 */
const fetch = createAPI<[positions: readonly Position[], limits: Limits], Answer[]>(
  1,
  4,
  (positions: readonly Position[], {most, ofPartition}: Limits) => {
    const writer = Writer.create()
      .appendInt32(-1) // a consumer
      .appendInt32(WAIT_MS)
      .appendInt32(1) // bytes are enough
      .appendInt32(most)
      .appendInt8(0); // what is not committed is read too, as topics without transactions are
    return appendByTopic(writer, positions, (own, {partition, offset}) => {
      own.appendInt32(partition).appendInt64(offset).appendInt32(ofPartition);
    });
  },
  (_correlationId, _apiKey, _apiVersion, reader: Reader) => {
    reader.skip(4); // throttled for so long
    return readByTopic(reader, topic => {
      const [partition, errorCode] = [reader.readInt32(), reader.readInt16()];
      reader.skip(16); // high watermark, last stable offset
      reader.readNullableArray(() => reader.skip(16), false, false); // aborted transactions
      return {topic, partition, errorCode, records: reader.readBytes(false)};
    });
  },
  false,
  false,
);

/** What was fetched before is not for it any more. */
function send(position: Position, offset: bigint): void {
  position.offset = offset;
  position.turn += 1;
}

/** Failures of a broker since its last answer in which nothing was refused; undefined: of asking who leads what. */
type Failures = Map<Broker | undefined, number>;

export interface FetcherOptions {
  readonly settings: Settings;
  readonly log: Log;
  readonly limits: Limits;
  /** Takes batch after batch of one partition; what throws ends the fetcher. */
  readonly take: (place: Place, records: FetchedRecords) => Promise<void>;
}

/** Reads partitions from given offsets on, from whichever brokers lead them. */
export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #brokers: Brokers;
  readonly #positions = new Map<string, Position>();
  readonly #paused = new Set<string>();
  readonly #resumed = new Bell();

  constructor(options: FetcherOptions) {
    this.#options = options;
    this.#brokers = new Brokers(options.settings, options.log);
  }

  /** Nothing more of the topic is fetched. */
  pause(topic: string): void {
    this.#paused.add(topic);
  }

  /** The topic is read on, where it was or from the offset that `seek` gave. */
  resume(topic: string): void {
    this.#paused.delete(topic);
    this.#resumed.ring();
  }

  seek(place: Place, offset: bigint): void {
    const position = this.#positions.get(placeOf(place.topic, place.partition));
    if (position) send(position, offset);
  }

  /** Reads until the signal aborts. Rejects with what `take` throws, or where brokers are away for long. */
  async run(from: Iterable<Begin>, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    this.#positions.clear();
    for (const {topic, partition, offset} of from)
      this.#positions.set(placeOf(topic, partition), {topic, partition, offset, turn: 0});
    const failures: Failures = new Map();
    while (!signal.aborted && this.#positions.size > 0) {
      const failed = await this.#followAll(signal, failures);
      if (signal.aborted || !failed) continue;
      const attempt = failures.get(failed.leader) ?? 0;
      failures.set(failed.leader, attempt + 1);
      await this.#brokers.recover(failed.thrown, attempt, signal);
    }
  }

  /** Ends with the first failure, which it gives: it is asked again who leads what. */
  async #followAll(
    signal: AbortSignal,
    failures: Failures,
  ): Promise<{leader?: Broker; thrown: unknown} | undefined> {
    const ended = new AbortController();
    const ends = AbortSignal.any([signal, ended.signal]);
    let groups: Map<Broker, Position[]>;
    try {
      groups = await this.#brokers.byLeader(this.#positions.values());
      failures.delete(undefined);
    } catch (thrown) {
      return {thrown};
    }
    let failed: {leader: Broker; thrown: unknown} | undefined;
    const follow = async ([leader, own]: [Broker, Position[]]): Promise<void> => {
      try {
        await this.#follow(leader, own, ends, () => failures.delete(leader));
      } catch (thrown) {
        failed ??= {leader, thrown};
      } finally {
        ended.abort();
      }
    };
    await Promise.all(Array.from(groups, follow));
    return failed;
  }

  async #follow(leader: Broker, own: Position[], signal: AbortSignal, onSound: () => void): Promise<void> {
    let positions = own;
    // Awaited behind what has come, or never where the reading ends before.
    const ask = (restMs?: number) => {
      const answer = this.#ask(leader, positions, signal, restMs);
      answer.catch(() => {});
      return answer;
    };
    let asked = ask();
    while (!signal.aborted) {
      const {answers, turns} = await asked;
      let bytes = 0;
      const come = new Map<Position, FetchedRecords>();
      let refusal: Refusal | undefined;
      for (const {topic, partition, errorCode, records} of answers) {
        const position = this.#positions.get(placeOf(topic, partition));
        if (!position || this.#isElsewhere(position, turns)) continue;
        if (errorCode !== 0) {
          refusal ??= Refusal.byCode(errorCode, topic);
          continue;
        }
        const fetched = new FetchedRecords(records, position.offset);
        position.offset = fetched.next;
        bytes += records.length;
        if (fetched.next > fetched.first) come.set(position, fetched);
      }
      // A broker fills its answer in the order of the request: who had something is asked for last.
      positions = [...positions.filter(one => !come.has(one)), ...come.keys()];
      const isSmall = bytes > 0 && bytes < this.#options.limits.most / 2;
      const rest = isSmall ? Math.min(WAIT_MS, positions.length * REST_MS) : 0;
      if (!refusal) asked = ask(rest);
      for (const [position, fetched] of come) {
        for (const batch of fetched.batches()) {
          if (!signal.aborted && !this.#isElsewhere(position, turns)) {
            await this.#options.take(position, batch);
            continue;
          }
          // It was not taken, and nobody has sent the position elsewhere: it comes again.
          if (turns.get(position) === position.turn) send(position, batch.from);
          break;
        }
      }
      // Behind what came of the other partitions: they are read on from there.
      if (refusal) throw refusal;
      onSound();
    }
  }

  #isElsewhere(position: Position, turns: ReadonlyMap<Position, number>): boolean {
    return turns.get(position) !== position.turn || this.#paused.has(position.topic);
  }

  async #ask(
    leader: Broker,
    positions: readonly Position[],
    signal: AbortSignal,
    restMs = 0,
  ): Promise<{answers: readonly Answer[]; turns: ReadonlyMap<Position, number>}> {
    if (restMs > 1) await sleep(restMs);
    const wanted = positions.filter(({topic}) => !this.#paused.has(topic));
    const turns = new Map(wanted.map(position => [position, position.turn]));
    if (wanted.length > 0)
      return {
        answers: await fetch.async(await this.#brokers.to(leader), wanted, this.#options.limits),
        turns,
      };
    if (!signal.aborted) await this.#resumed.heard(WAIT_MS);
    return {answers: [], turns};
  }

  async close(): Promise<void> {
    await this.#brokers.close();
  }
}
