import type {ClientBase} from 'pg';
import type {Settings} from '../settings/settings.ts';
import type {ClickHouseClient} from '../sink/clickhouse.ts';
import {clientConfig, connect, liftTimeLimits} from '../source/postgres.ts';
import {pgLiteral} from '../source/table-schema.ts';
import type {CapturedTable} from '../source/tables.ts';
import type {ChecksumSql, Scope} from './checksum.ts';
import {Reading, readSource, readTarget} from './readings.ts';

export interface SourceScan {
  readonly settings: Settings;
  /** A connection with no transaction open. */
  readonly postgres: ClientBase;
  readonly table: CapturedTable;
  readonly sql: ChecksumSql;
  /** Only told of tables that are read in several parts. */
  readonly onProgress: (read: Reading, done: boolean) => void;
}

/** 64 MiB: some hundred thousand rows, so that there is something to tell every few seconds. */
const SLICE_BLOCKS = 8_192;
const MAX_SLICES = 64;

/** Reads the whole table once in its physical order; a large one by several connections under one snapshot. */
export async function scanSource(scan: SourceScan): Promise<Reading> {
  const {settings, postgres, sql, onProgress} = scan;
  const slices = await slicesOf(scan);
  if (slices.length === 1) return readSource(postgres, sql.source('piece', {}));
  const connections = Math.min(settings.FRESHET_SNAPSHOT_WORKERS, slices.length);
  const reading = new Reading();
  const others: Awaited<ReturnType<typeof connect>>[] = [];
  await postgres.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  try {
    const {rows} = await postgres.query<{name: string}>('SELECT pg_export_snapshot() AS name');
    while (others.length + 1 < connections) {
      const other = await connect({...clientConfig(settings), silenceMs: 0});
      others.push(other);
      await liftTimeLimits(other);
      await other.query('SET lock_timeout = 0; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await other.query(`SET TRANSACTION SNAPSHOT ${pgLiteral(rows[0]!.name)}`);
    }
    let left = slices.length;
    onProgress(reading, false);
    await Promise.all(
      [postgres, ...others].map(async client => {
        for (let slice = slices.shift(); slice; slice = slices.shift()) {
          reading.merge(await readSource(client, sql.source('piece', slice)));
          left -= 1;
          onProgress(reading, left === 0);
        }
      }),
    );
    return reading;
  } finally {
    slices.length = 0; // where one failed, the others end after what they are at
    await postgres.query('ROLLBACK').catch(() => {});
    await Promise.all(others.map(other => other.end().catch(() => {})));
  }
}

const TARGET_SLICES = 16;
/** So many ranges are worth a query of their own. */
const FEW_RANGES = 64;

/** Reads the current rows of the whole target, range after range where it is divided by ranges. */
export async function scanTarget({
  client,
  sql,
  onProgress,
}: Pick<SourceScan, 'sql' | 'onProgress'> & {client: ClickHouseClient}): Promise<Reading> {
  const names = sql.pieces.names ?? [];
  const step = Math.max(FEW_RANGES, Math.ceil(names.length / TARGET_SLICES));
  if (names.length <= step) return readTarget(client, sql.target('piece', {}));
  const reading = new Reading();
  onProgress(reading, false);
  for (let at = 0; at < names.length; at += step) {
    reading.merge(await readTarget(client, sql.target('piece', {pieces: names.slice(at, at + step)})));
    onProgress(reading, at + step >= names.length);
  }
  return reading;
}

async function slicesOf({postgres, table}: SourceScan): Promise<Scope[]> {
  const {rows} = await postgres.query<{blocks: number}>(
    `SELECT (pg_relation_size($1::oid) / current_setting('block_size')::int)::float8 AS blocks`,
    [table.oid],
  );
  const {blocks} = rows[0]!;
  const count = Math.min(MAX_SLICES, Math.ceil(blocks / SLICE_BLOCKS));
  if (table.partitioned || count <= 1) return [{}];
  const step = Math.ceil(blocks / count);
  return Array.from({length: count}, (_, i) => ({
    blocks: {from: i * step, to: i === count - 1 ? undefined : (i + 1) * step},
  }));
}
