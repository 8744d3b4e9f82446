import type {Admin, TopicPartitionOffsetAndMetadata} from 'kafkajs';
import type {Log} from '../observe/log.ts';
import {type Place, placeOf} from './place.ts';

/** Messages that a partition does not have any more, or not where they were due; it goes on at `offset`. */
export interface Gap {
  readonly partition: number;
  readonly offset: bigint;
  readonly text: string;
}

/** Where a partition is read from. */
export interface Begin extends Place {
  readonly offset: bigint;
}

type Assignment = Readonly<Record<string, readonly number[]>>;

/**
 * Where the consumer group stands in the partitions that are this member's. It goes forwards alone and is never reset:
 * whoever asks is told of a gap, and decides.
 */
export class GroupPositions {
  readonly #admin: Admin;
  readonly #group: string;
  readonly #log: Log;
  /** 'topic/partition' of those that are ours → the offset that must come next. */
  readonly #expected = new Map<string, bigint>();
  /** Of the same → where the group stood when they became ours. */
  readonly #base = new Map<string, bigint>();
  readonly #toCommit = new Map<string, TopicPartitionOffsetAndMetadata>();

  constructor(admin: Admin, group: string, log: Log) {
    this.#admin = admin;
    this.#group = group;
    this.#log = log;
  }

  /** What the group has committed: [topic, partition, next]; partitions where it has nothing are not among them. */
  async committed(topics: readonly string[]): Promise<(readonly [string, number, bigint])[]> {
    const offsets = await this.#admin.fetchOffsets({groupId: this.#group, topics: [...topics]});
    return offsets.flatMap(({topic, partitions}) =>
      partitions
        .filter(({offset}) => offset !== '-1')
        .map(({partition, offset}) => [topic, partition, BigInt(offset)] as const),
    );
  }

  /**
   * These partitions are ours now, and no others. Gives where they begin, and the gaps by topic: what is not in the log
   * any more must not be passed over without a word.
   */
  async takeOver(assignment: Assignment): Promise<{begins: Begin[]; gaps: ReadonlyMap<string, Gap[]>}> {
    for (const own of [this.#expected, this.#base, this.#toCommit]) own.clear();
    const known = await this.committed(Object.keys(assignment));
    const committed = new Map(known.map(([topic, partition, next]) => [placeOf(topic, partition), next]));
    const gaps = new Map<string, Gap[]>();
    const begins: Begin[] = [];
    for (const [topic, partitions] of Object.entries(assignment)) {
      const kept = await this.#admin.fetchTopicOffsets(topic);
      for (const one of kept.filter(({partition}) => partitions.includes(partition))) {
        const [partition, low, high] = [one.partition, BigInt(one.low), BigInt(one.high)];
        const place = placeOf(topic, partition);
        const next = committed.get(place);
        // Without an offset it begins with the first message there ever was, or that is not there any more.
        if (next === undefined ? low > 0n : next < low || next > high) {
          const stands = next === undefined || next < 0n ? 'has no offset' : `stands at ${next}`;
          const text = `${place} holds ${low} to ${high}, and the group ${stands}`;
          gaps.set(topic, [...(gaps.get(topic) ?? []), {partition, offset: low, text}]);
          continue;
        }
        if (next === undefined && high > low) this.#log.info({place}, `${place} is read from its beginning`);
        const begin = next ?? low;
        begins.push({topic, partition, offset: begin});
        this.#expected.set(place, begin);
        this.#base.set(place, begin);
        // A group that stands somewhere can be told from one that was lost, and capture sees that the partition is taken.
        if (next === undefined) this.reached(topic, partition, begin);
      }
    }
    return {begins, gaps};
  }

  /** Messages from `first` on came, and `next` is behind them. Gives the gap where others were due. */
  took(topic: string, partition: number, first: bigint, next: bigint): Gap | undefined {
    const place = placeOf(topic, partition);
    const due = this.#expected.get(place) ?? first;
    this.#expected.set(place, next);
    if (first === due) return undefined;
    return {partition, offset: first, text: `${place} goes on at ${first}, where ${due} was due`};
  }

  /** From here on any offset may come next: the consumer was sent elsewhere. */
  sentElsewhere(topic: string, partition: number): void {
    this.#expected.delete(placeOf(topic, partition));
  }

  /** The partition is not followed before it is assigned again. */
  forget(topic: string, partition: number): void {
    this.#base.delete(placeOf(topic, partition));
    this.#toCommit.delete(placeOf(topic, partition));
  }

  /** All before `next` is done. What another member has by now, or had before us, is for it to commit. */
  done(topic: string, partition: number, next: bigint): void {
    if (next > (this.#base.get(placeOf(topic, partition)) ?? next)) this.reached(topic, partition, next);
  }

  /** To be committed, wherever the group stands. */
  reached(topic: string, partition: number, next: bigint): void {
    this.#toCommit.set(placeOf(topic, partition), {topic, partition, offset: next.toString()});
  }

  /** Takes what is to be committed. */
  take(): TopicPartitionOffsetAndMetadata[] {
    const offsets = [...this.#toCommit.values()];
    this.#toCommit.clear();
    return offsets;
  }

  /** Of what could not be committed, what is still ours and has not gone on meanwhile is to be committed later. */
  giveBack(offsets: readonly TopicPartitionOffsetAndMetadata[]): void {
    for (const offset of offsets) {
      const place = placeOf(offset.topic, offset.partition);
      if (this.#base.has(place) && !this.#toCommit.has(place)) this.#toCommit.set(place, offset);
    }
  }
}
