import {setTimeout as sleep} from 'node:timers/promises';
import type {ClientBase} from 'pg';
import {z} from 'zod';
import {asTargetError, type ClickHouseClient} from '../sink/clickhouse.ts';
import {type Lsn, parseLsn} from '../source/lsn.ts';
import type {ChecksumSql} from './checksum.ts';
import {type Fingerprint, type Fingerprints, NOTHING, type Values} from './settling.ts';

const Whole = z.string().regex(/^\d+$/).transform(BigInt);
const UnitRow = z.tuple([z.string(), Whole, Whole]);
const Hash = z.union([z.literal(''), Whole]);
const PastRow = z.tuple([z.string(), z.array(Hash), z.array(Hash)]);
const TextsRow = z.tuple([z.string(), z.array(z.string())]);

const fingerprints = (rows: unknown): Fingerprints =>
  new Map(
    z
      .array(UnitRow)
      .parse(rows)
      .map(([unit, count, sum]) => [unit, {count, sum}]),
  );

/** A reading of PostgreSQL, and a position before its snapshot. */
export async function readSource(client: ClientBase, sql: string): Promise<{read: Fingerprints; floor: Lsn}> {
  const {rows} = await client.query<{lsn: string}>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  return {floor: parseLsn(rows[0]!.lsn), read: fingerprints(await sourceRows(client, sql))};
}

export async function readTarget(client: ClickHouseClient, sql: string): Promise<Fingerprints> {
  return fingerprints(await targetRows(client, sql));
}

/** What `ChecksumSql.versions` finds: for each key all that ClickHouse still has of it since a position. */
export async function readPast(client: ClickHouseClient, sql: string): Promise<Values> {
  const found = z.array(PastRow).parse(await targetRows(client, sql));
  const asRow = (hash: '' | bigint): Fingerprint => (hash === '' ? NOTHING : {count: 1n, sum: hash});
  return new Map(found.map(([key, before, after]) => [key, [...before, ...after].map(asRow)]));
}

/** key → a hash for each column */
export type ColumnHashes = ReadonlyMap<string, readonly string[]>;

export async function readSourceColumns(
  client: ClientBase,
  sql: string,
  keys: readonly string[],
): Promise<ColumnHashes> {
  return new Map(z.array(TextsRow).parse(await sourceRows(client, sql, [keys])));
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
  if (keys.length === 0) return new Map();
  const found = z.array(TextsRow).parse(await sourceRows(client, sql.sourceKeys(), [keys]));
  const parameters = found.flatMap(([, values]) => values);
  const values = new Map(keys.map(key => [key, new Map<bigint, Fingerprint>()]));
  while (found.length > 0 && !signal.aborted) {
    const read = fingerprints(await sourceRows(client, sql.sourceAt(found.length), parameters));
    for (const [key, of] of values) {
      const value = read.get(key) ?? NOTHING;
      of.set(value.sum, value);
    }
    await sleep(SAMPLE_MS);
  }
  return new Map([...values].map(([key, of]) => [key, [...of.values()]]));
}

async function sourceRows(client: ClientBase, text: string, values: unknown[] = []): Promise<unknown> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    return (await client.query({text, values, rowMode: 'array'})).rows;
  } finally {
    await client.query('ROLLBACK');
  }
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
      },
    });
    return await result.json();
  } catch (error) {
    throw asTargetError(error);
  }
}
