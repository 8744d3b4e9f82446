import type pg from 'pg';
import {type CopyToStreamQuery, to as copyTo} from 'pg-copy-streams';
import type {Budget} from '../budget.ts';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import {metrics} from '../observe/metrics.ts';
import {type Blocks, inBlocks} from './blocks.ts';
import {CopyTextReader} from './copy-text.ts';
import type {Tuple} from './pgoutput.ts';
import {asSourceError} from './postgres.ts';
import {pgName, type TableSchema} from './table-schema.ts';
import type {CapturedTable} from './tables.ts';

/** A part of a table: these blocks of each partition of it. The last one has no end. */
export interface Chunk extends Blocks {
  readonly number: number;
}

/** Rows that went by the encoder, on their way. */
export interface RowBatch {
  readonly bytes: number;
  readonly count: number;
  /** The tuple is valid during the call alone. */
  add(row: Tuple): void;
  /** Resolves when the rows are where they belong. */
  write(): Promise<void>;
}

/** Where the rows of a snapshot go. */
export interface RowTarget {
  /** Rows are written when they are so many bytes. */
  readonly batchBytes: number;
  readonly newBatch: (table: TableSchema) => RowBatch;
  /**
   * Takes COPY's bytes as they are, the columns as `plainSelect` gives them. False where that did not succeed: then the
   * chunk goes by the encoder. Missing where rows must go by the encoder.
   */
  readonly pipe?: (table: TableSchema, data: AsyncIterable<Buffer>) => Promise<boolean>;
  /** While it is full a batch is written before the next is read. */
  readonly budget?: Budget;
  /** Resolves when so many bytes more may be read. */
  readonly mayRead?: (bytes: number) => Promise<void>;
  readonly signal: AbortSignal;
}

/** What was read so far. */
export interface Read {
  rows: number;
  bytes: number;
}

const NEWLINE = 0x0a;

/** Can ClickHouse read the rows of the table as COPY writes them? */
const isPlain = ({columns}: TableSchema): boolean => columns.every(({stored}) => stored.copy !== undefined);

/** Holds for rows with a value that ClickHouse cannot hold; undefined where every value has a place. */
function unfitRows({columns}: TableSchema): string | undefined {
  const conditions = columns.flatMap(({name, stored}) => stored.unfit?.(pgName(name)) ?? []);
  return conditions.length > 0 ? `(${conditions.join(' OR ')})` : undefined;
}

/**
 * Reads the rows of a chunk: as bytes that nobody looks at where ClickHouse can read them, otherwise through the encoder.
 * Gives false where ClickHouse did not take the bytes; the connection is in the middle of them then.
 */
export async function readRows(
  client: pg.Client,
  {table, chunk, encoded}: {table: CapturedTable; chunk: Chunk; encoded: boolean},
  target: RowTarget,
  tell: (more: Read) => void,
): Promise<boolean> {
  const {schema} = table;
  if (encoded || !target.pipe || !isPlain(schema)) {
    await readEncoded(client, table, copySql(table, chunk), target, tell);
    return true;
  }
  const unfit = unfitRows(schema);
  // The constant at the end tells a whole row from one that was cut off in its last value.
  const select = [...schema.columns.map(({name, stored}) => stored.copy!.select(pgName(name))), '0'];
  const fit = unfit === undefined ? [] : [`${unfit} IS NOT TRUE`];
  const data = copied(copyOut(client, copySql(table, chunk, {select, where: fit})), target);
  let failed: unknown;
  const counted = async function* (): AsyncGenerator<Buffer> {
    try {
      for await (const piece of data) {
        const rows = linesIn(piece);
        tell({rows, bytes: piece.length});
        metrics.snapshotRows.inc({table: schema.name}, rows);
        yield piece;
        failpoint('snapshot.chunk');
      }
    } catch (error) {
      failed = error;
      throw error;
    }
  };
  const taken = await target.pipe(schema, counted());
  if (failed !== undefined) throw failed;
  if (!taken) return false;
  if (unfit !== undefined)
    await readEncoded(client, table, copySql(table, chunk, {where: [unfit]}), target, tell);
  return true;
}

/** In COPY's text a newline stands behind a row and nowhere else. */
function linesIn(data: Buffer): number {
  let count = 0;
  for (let at = data.indexOf(NEWLINE); at >= 0; at = data.indexOf(NEWLINE, at + 1)) count++;
  return count;
}

/** pg-copy-streams tells of a broken connection, and keeps nothing of it: also where nobody reads yet, or any more. */
function copyOut(client: pg.Client, sql: string): CopyToStreamQuery {
  const stream = client.query(copyTo(sql));
  stream.on('error', error => stream.destroy(error));
  return stream;
}

async function* copied(stream: CopyToStreamQuery, target: RowTarget): AsyncGenerator<Buffer> {
  try {
    for await (const data of stream as AsyncIterable<Buffer>) {
      if (target.signal.aborted) throw new PipelineError('pg.unavailable', 'the snapshot was stopped');
      await target.mayRead?.(data.length);
      yield data;
    }
  } catch (error) {
    throw asSourceError(error);
  }
}

async function readEncoded(
  client: pg.Client,
  {schema}: CapturedTable,
  sql: string,
  target: RowTarget,
  tell: (more: Read) => void,
): Promise<void> {
  let batch = target.newBatch(schema);
  const reader = new CopyTextReader(row => batch.add(row));
  let writing: Promise<void> = Promise.resolve();
  let written = 0;
  const share = target.budget?.share();
  const account = (): void => share?.hold(batch.bytes + written);
  const flush = async (): Promise<void> => {
    await writing; // one batch is written while the next is read
    const full = batch;
    batch = target.newBatch(schema);
    tell({rows: full.count, bytes: 0});
    metrics.snapshotRows.inc({table: schema.name}, full.count);
    failpoint('snapshot.chunk');
    written = full.bytes;
    writing = full.write().then(() => {
      written = 0;
      account();
    });
    writing.catch(() => {}); // thrown at the next await
    account();
    if (target.budget?.full) await writing;
  };
  try {
    for await (const data of copied(copyOut(client, sql), target)) {
      tell({rows: 0, bytes: data.length});
      reader.push(data);
      account();
      if (batch.bytes >= target.batchBytes) await flush();
    }
    if (batch.count > 0) await flush();
    await writing;
  } finally {
    await writing.catch(() => {}); // where reading failed, nothing of it comes later than what is done about that
    if (share) target.budget?.close(share);
  }
}

function copySql(
  {schema: {definition, columns}, partitioned, rowFilter}: CapturedTable,
  chunk: Chunk,
  {
    select = columns.map(column => pgName(column.name)),
    where = [],
  }: {select?: readonly string[]; where?: readonly string[]} = {},
): string {
  const conditions = [...(rowFilter === null ? [] : [`(${rowFilter})`]), ...inBlocks(chunk), ...where];
  const only = partitioned ? '' : 'ONLY ';
  return `COPY (SELECT ${select.join(', ')} FROM ${only}${pgName(definition.schema, definition.table)}${
    conditions.length === 0 ? '' : ` WHERE ${conditions.join(' AND ')}`
  }) TO STDOUT`;
}
