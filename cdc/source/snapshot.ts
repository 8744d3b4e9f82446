import type pg from 'pg';
import {to as copyTo} from 'pg-copy-streams';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import {metrics} from '../observe/metrics.ts';
import {Bytes} from '../types/bytes.ts';
import {CopyTextReader} from './copy-text.ts';
import {asSourceError, type ClientConfig, connect} from './postgres.ts';
import {type Reject, RowEncoder, technicalColumns} from './row-encoder.ts';
import {pgLiteral, pgName, type TableSchema} from './table-schema.ts';
import type {CapturedTable} from './tables.ts';

/** Rows of a snapshot on their way to ClickHouse. */
export interface SnapshotChunk {
  readonly table: TableSchema;
  /** Rows as JSON objects with their technical columns, a line each. */
  readonly rows: Bytes;
  /** Rows with values that ClickHouse cannot hold, without the technical columns. */
  readonly special: {readonly key: string; readonly json: Buffer; readonly rejects: readonly Reject[]}[];
  readonly technical: string;
  readonly version: bigint;
  count: number;
}

export interface SnapshotProgress {
  readonly table: string;
  rows: number;
  bytes: number;
  readonly estimatedRows: number;
  done: boolean;
}

export interface SnapshotOptions {
  readonly config: ClientConfig;
  readonly tables: readonly CapturedTable[];
  readonly snapshotName: string;
  readonly workers: number;
  readonly chunkBytes: number;
  readonly version: bigint;
  readonly commitMicros: bigint;
  /** Resolves when the rows are visible. */
  readonly write: (chunk: SnapshotChunk) => Promise<void>;
  readonly onProgress: (progress: Readonly<SnapshotProgress>) => void;
  readonly signal: AbortSignal;
}

/**
 * Reads the tables under an exported snapshot, several at a time, the largest first. All workers have taken the snapshot before the first row is read.
 */
export async function readSnapshot(options: SnapshotOptions): Promise<void> {
  const queue = [...options.tables].sort((a, b) => b.estimatedRows - a.estimatedRows);
  const count = Math.max(1, Math.min(options.workers, queue.length));
  const clients: pg.Client[] = [];
  try {
    for (let i = 0; i < count; i++) clients.push(await takeSnapshot(options));
    await Promise.all(
      clients.map(async client => {
        for (let table = queue.shift(); table; table = queue.shift()) await readTable(client, table, options);
      }),
    );
  } catch (error) {
    throw asSourceError(error);
  } finally {
    // A worker in the middle of a COPY does not read a goodbye.
    await Promise.all(clients.map(client => Promise.race([client.end().catch(() => {}), destroyed(client)])));
  }
}

function destroyed(client: pg.Client): void {
  (client as unknown as {connection: {stream: {destroy(): void}}}).connection.stream.destroy();
}

async function takeSnapshot({config, snapshotName}: SnapshotOptions): Promise<pg.Client> {
  const client = await connect(config);
  await client.query(
    'SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0;' +
      'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
  );
  await client.query(`SET TRANSACTION SNAPSHOT ${pgLiteral(snapshotName)}`);
  return client;
}

async function readTable(client: pg.Client, table: CapturedTable, options: SnapshotOptions): Promise<void> {
  const {schema, estimatedRows} = table;
  const encoder = new RowEncoder(
    schema,
    schema.columns.map((_, i) => i),
  );
  const progress: SnapshotProgress = {table: schema.name, rows: 0, bytes: 0, estimatedRows, done: false};
  const technical = technicalColumns(options.version, false, options.commitMicros);
  const newChunk = (): SnapshotChunk => ({
    table: schema,
    rows: new Bytes(1 << 20),
    special: [],
    technical,
    version: options.version,
    count: 0,
  });
  let chunk = newChunk();
  const reader = new CopyTextReader(row => addRow(chunk, encoder, row));
  let writing: Promise<void> = Promise.resolve();
  const flush = async (): Promise<void> => {
    await writing; // one chunk is written while the next is read
    const full = chunk;
    chunk = newChunk();
    progress.rows += full.count;
    metrics.snapshotRows.inc({table: schema.name}, full.count);
    failpoint('snapshot.chunk');
    writing = options.write(full);
    writing.catch(() => {}); // thrown at the next await
    options.onProgress(progress);
  };
  const stream = client.query(copyTo(copySql(table)));
  for await (const data of stream as AsyncIterable<Buffer>) {
    if (options.signal.aborted) throw new PipelineError('pg.unavailable', 'the snapshot was stopped');
    progress.bytes += data.length;
    reader.push(data);
    if (chunk.rows.length >= options.chunkBytes) await flush();
  }
  if (chunk.count > 0) await flush();
  await writing;
  options.onProgress({...progress, done: true});
}

function addRow(chunk: SnapshotChunk, encoder: RowEncoder, row: Parameters<RowEncoder['image']>[1]): void {
  const out = chunk.rows;
  const start = out.length;
  encoder.image(out, row, false, null);
  chunk.count += 1;
  if (encoder.rejects.length > 0) {
    const json = Buffer.from(out.view(start));
    out.length = start;
    encoder.key(out, row, null);
    const key = out.view(start).toString('utf8');
    out.length = start;
    chunk.special.push({key, json, rejects: encoder.rejects});
    return;
  }
  out.length -= 1; // the closing brace: the technical columns go on
  out.ascii(`,${chunk.technical}\n`);
}

function copySql({schema: {definition, columns}, partitioned, rowFilter}: CapturedTable): string {
  const list = columns.map(column => pgName(column.name)).join(', ');
  const where = rowFilter === null ? '' : ` WHERE ${rowFilter}`;
  const only = partitioned ? '' : 'ONLY ';
  return `COPY (SELECT ${list} FROM ${only}${pgName(definition.schema, definition.table)}${where}) TO STDOUT`;
}
