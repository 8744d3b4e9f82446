import type {TableSchema} from '../source/table-schema.ts';

/**
 * Facts beside the envelope, so that the sink need not parse it. They are ours; who reads Debezium topics can ignore
 * them.
 */
export const HEADER = {
  /** The technical columns as the rest of a JSON object: `"_version":"…","_is_deleted":0,"_commit_ts":…}`. */
  row: 'freshet.row',
  /** `TableSchema.id` that the row was written with. */
  schema: 'freshet.schema',
  /** JSON array: columns whose unchanged TOAST value PostgreSQL did not send. */
  unchanged: 'freshet.unchanged',
  /** With `unchanged`: the key as PostgreSQL's text, to ask PostgreSQL by. */
  key: 'freshet.key',
  /** The row had another key before, so what ClickHouse knows under this key is not its past. */
  moved: 'freshet.moved',
  /** JSON array of {column, reason}: values ClickHouse cannot hold. */
  rejects: 'freshet.rejects',
  /** A control message: rows of the table below this version are gone (TRUNCATE, or the end of a resync). */
  horizon: 'freshet.horizon',
} as const;

export type Headers = Readonly<Record<string, Buffer>>;

/** Do technical columns, as `HEADER.row` has them, say that the row is gone? */
export const isDeletion = (technical: Buffer | string): boolean => technical.includes('"_is_deleted":1');
const VERSION = /"_version":"(\d+)"/;
/** The version in technical columns; 0 where there is none. */
export const versionOf = (technical: Buffer | string = ''): string =>
  VERSION.exec(technical.toString('latin1'))?.[1] ?? '0';
/** The same columns where the row is gone, at its own version or another. */
export const asDeletion = (technical: string, version = versionOf(technical)): string =>
  technical.replace(VERSION, `"_version":"${version}"`).replace('"_is_deleted":0', '"_is_deleted":1');

/** A record on its way into a topic. */
export interface OutMessage {
  readonly table: TableSchema;
  readonly partition: number;
  readonly key: Buffer | null;
  readonly value: Buffer;
  readonly headers: Headers;
}

/** A row that goes into its insert as it is: one line of JSON, with the technical columns. */
export interface Line {
  /** With the newline. */
  readonly bytes: Buffer;
  /** `TableSchema.id` that the row was written with. */
  readonly schemaId: string;
}

/** A record as it came out of a topic. `offset` rises by one within (table, partition). */
export interface InMessage {
  /** Of a row that came without a topic, and has no headers but those of every row. */
  readonly line?: Line | undefined;
  readonly offset: bigint;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Readonly<Record<string, Buffer | undefined>>;
}

/** The same with bytes of its own. */
export const copied = ({offset, key, value, headers}: InMessage): InMessage => ({
  offset,
  key: key && Buffer.from(key),
  value: value && Buffer.from(value),
  headers: Object.fromEntries(
    Object.entries(headers).map(([name, bytes]) => [name, bytes && Buffer.from(bytes)]),
  ),
});

/** Messages of one partition of one table's topic, in order. */
export interface Delivery {
  /** 'schema.table' */
  readonly table: string;
  readonly partition: number;
  /** Offset of the first one. */
  readonly first: bigint;
  /** To be gone through once. Their bytes hold as long as that: who keeps one for longer copies it. */
  readonly messages: Iterable<InMessage>;
}

/** For each table ('schema.table'): partition → offset behind the last message. */
export type Ends = Readonly<Record<string, Readonly<Record<number, string>>>>;

/** Kafka's own partitioner (murmur2 as its Java clients compute it), so that any producer's keys agree with ours. */
export function partitionOf(key: Buffer, partitions: number): number {
  return (murmur2(key) & 0x7fffffff) % partitions;
}

const M = 0x5bd1e995;
export function murmur2(data: Buffer): number {
  let h = 0x9747b28c ^ data.length;
  let at = 0;
  for (; at + 4 <= data.length; at += 4) {
    let k = Math.imul(data.readInt32LE(at), M);
    k ^= k >>> 24;
    h = Math.imul(h, M) ^ Math.imul(k, M);
  }
  const rest = data.length - at;
  if (rest > 2) h ^= data[at + 2]! << 16;
  if (rest > 1) h ^= data[at + 1]! << 8;
  if (rest > 0) h = Math.imul(h ^ data[at]!, M);
  h = Math.imul(h ^ (h >>> 13), M);
  return h ^ (h >>> 15);
}
