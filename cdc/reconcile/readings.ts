import {setTimeout as sleep} from 'node:timers/promises';
import type {ClientBase} from 'pg';
import {z} from 'zod';
import {asTargetError, type ClickHouseClient, LONG_STATEMENT} from '../sink/clickhouse.ts';
import type {ChecksumSql, PgQuery} from './checksum.ts';
import {type Fingerprint, type Fingerprints, NOTHING, type Values} from './settling.ts';

const Whole = z.string().regex(/^\d+$/).transform(BigInt);
const UnitRow = z.tuple([z.string(), Whole, Whole, Whole]);
const Hash = z.union([z.literal(''), Whole]);
const PastRow = z.tuple([z.string(), z.array(Hash), z.array(Hash)]);
const TextsRow = z.tuple([z.string(), z.array(z.string())]);
const NewestRow = z.tuple([z.string(), Whole]);

/** What one or several queries found, and how much they read. */
export class Reading {
  readonly units = new Map<string, Fingerprint>();
  rows = 0n;
  bytes = 0n;

  /** Adds the answer of a query; rows of one unit may be spread over several. */
  add(found: unknown): this {
    for (const [unit, count, sum, bytes] of z.array(UnitRow).parse(found)) {
      this.#add(unit, {count, sum});
      this.rows += count;
      this.bytes += bytes;
    }
    return this;
  }

  merge(other: Reading): this {
    for (const [unit, value] of other.units) this.#add(unit, value);
    this.rows += other.rows;
    this.bytes += other.bytes;
    return this;
  }

  #add(unit: string, {count, sum}: Fingerprint): void {
    const before = this.units.get(unit);
    this.units.set(unit, before ? {count: before.count + count, sum: before.sum + sum} : {count, sum});
  }
}

export async function readSource(client: ClientBase, query: PgQuery): Promise<Reading> {
  return new Reading().add(await sourceRows(client, query));
}

export async function readTarget(client: ClickHouseClient, sql: string): Promise<Reading> {
  return new Reading().add(await targetRows(client, sql));
}

/** What `ChecksumSql.versions` finds: for each key all that ClickHouse still has of it since a position. */
export async function readPast(client: ClickHouseClient, sql: string): Promise<Values> {
  const found = z.array(PastRow).parse(await targetRows(client, sql));
  const asRow = (hash: '' | bigint): Fingerprint => (hash === '' ? NOTHING : {count: 1n, sum: hash});
  return new Map(found.map(([key, before, after]) => [key, [...before, ...after].map(asRow)]));
}

/** key → the newest version that ClickHouse has of it */
export async function readNewest(client: ClickHouseClient, sql: string): Promise<Map<string, bigint>> {
  return new Map(z.array(NewestRow).parse(await targetRows(client, sql)));
}

/** key → a hash for each column */
export type ColumnHashes = ReadonlyMap<string, readonly string[]>;

export async function readSourceColumns(client: ClientBase, query: PgQuery): Promise<ColumnHashes> {
  return new Map(z.array(TextsRow).parse(await sourceRows(client, query)));
}

export async function readTargetColumns(client: ClickHouseClient, sql: string): Promise<ColumnHashes> {
  return new Map(z.array(TextsRow).parse(await targetRows(client, sql)));
}

const SAMPLE_MS = 5;

/**
 * Reads a few keys in PostgreSQL by their index, again and again until the signal aborts: each value they had, where
 * they do not change faster than that.
 */
export async function sampleSource(
  client: ClientBase,
  sql: ChecksumSql,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<Values> {
  const values = new Map(keys.map(key => [key, new Map<bigint, Fingerprint>()]));
  while (keys.length > 0 && !signal.aborted) {
    const read: Fingerprints = (await readSource(client, sql.source('key', {keys}))).units;
    for (const [key, of] of values) {
      const value = read.get(key) ?? NOTHING;
      of.set(value.sum, value);
    }
    await sleep(SAMPLE_MS);
  }
  return new Map([...values].map(([key, of]) => [key, [...of.values()]]));
}

async function sourceRows(client: ClientBase, {text, values}: PgQuery): Promise<unknown> {
  return (await client.query({text, values: [...values], rowMode: 'array'})).rows;
}

async function targetRows(client: ClickHouseClient, query: string): Promise<unknown> {
  try {
    const result = await client.query({
      query,
      format: 'JSONCompactEachRow',
      clickhouse_settings: {
        // A header a minute: the connection of a long query is not taken for dead.
        send_progress_in_http_headers: 1,
        http_headers_progress_interval_ms: '60000',
        // Rows are joined into one text each: blocks of the usual 65 thousand large rows would not fit in memory.
        max_block_size: '4096',
        ...LONG_STATEMENT,
      },
    });
    return await result.json();
  } catch (error) {
    throw asTargetError(error);
  }
}
