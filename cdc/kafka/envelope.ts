import {PipelineError} from '../failures.ts';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import type {Tuple} from '../source/pgoutput.ts';
import {type RowEncoder, technicalColumns} from '../source/row-encoder.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {HEADER, type Headers, type OutMessage, partitionOf} from './message.ts';

/** What all events of one transaction share. */
export interface TransactionContext {
  readonly epoch: number;
  readonly commitLsn: Lsn;
  /** µs since 1970-01-01 UTC */
  readonly commitMicros: bigint;
  readonly xid: number;
}

export interface Change {
  readonly op: 'c' | 'u' | 'd';
  /** The old row where PostgreSQL sent one: all of it (`whole`), or its key alone. */
  readonly old: Tuple | null;
  readonly whole: boolean;
  readonly now: Tuple | null;
  readonly ordinal: number;
  readonly lsn: Lsn;
  /** The row had another key before. */
  readonly moved: boolean;
}

/** Messages of one batch: their bytes lie in one buffer, and are sliced when the batch is sent. */
export class Batch {
  readonly bytes = new Bytes();
  readonly #entries: {
    table: TableSchema;
    partition: number;
    key: number;
    value: number;
    end: number;
    headers: Headers;
  }[] = [];

  get count(): number {
    return this.#entries.length;
  }
  add(table: TableSchema, partition: number, key: number, value: number, headers: Headers): void {
    this.#entries.push({table, partition, key, value, end: this.bytes.length, headers});
  }
  messages(): OutMessage[] {
    return this.#entries.map(({table, partition, key, value, end, headers}) => ({
      table,
      partition,
      headers,
      key: key === value ? null : this.bytes.view(key, value),
      value: this.bytes.view(value, end),
    }));
  }
}

/** Writes Debezium's JSON envelope (schemas off) of one table's changes, straight from the bytes of the tuples. */
export class EnvelopeWriter {
  readonly rows: RowEncoder;
  readonly #source: {readonly head: string; readonly table: string};

  constructor(rows: RowEncoder, origin: {prefix: string; database: string}) {
    const {schema, table} = rows.table.definition;
    this.rows = rows;
    this.#source = {
      head: `"version":"1.0","connector":"postgresql","name":${JSON.stringify(origin.prefix)},`,
      table: `"snapshot":"false","db":${JSON.stringify(origin.database)},"schema":${JSON.stringify(schema)},"table":${JSON.stringify(table)},`,
    };
  }

  /** Appends one change to the batch. Throws `pg.protocol` where a key is not known. */
  write(batch: Batch, change: Change, transaction: TransactionContext, partitions: number): void {
    const out = batch.bytes;
    const keyStart = out.length;
    const row = change.now ?? change.old;
    if (!row) throw new PipelineError('internal', 'a change without a row');
    this.rows.key(out, row, change.old);
    const valueStart = out.length;
    const partition = partitionOf(out.view(keyStart, valueStart), partitions);
    out.ascii('{"before":');
    if (change.old && change.op !== 'c') this.rows.image(out, change.old, !change.whole, null);
    else out.ascii('null');
    out.ascii(',"after":');
    if (change.now) this.rows.image(out, change.now, false, change.whole ? change.old : null);
    else out.ascii('null');
    this.#tail(out, change, transaction);
    batch.add(this.rows.table, partition, keyStart, valueStart, this.#headers(change, transaction));
  }

  /** Appends a TRUNCATE: one message for each partition, behind that partition's older rows. */
  truncate(
    batch: Batch,
    at: Pick<Change, 'ordinal' | 'lsn'>,
    transaction: TransactionContext,
    partitions: number,
  ): void {
    const {epoch, commitLsn, commitMicros} = transaction;
    const value = new Bytes(1 << 10);
    value.ascii('{"before":null,"after":null');
    this.#tail(value, {...at, op: 't'}, transaction);
    const version = rowVersion(epoch, commitLsn, at.ordinal);
    addHorizon(batch, this.rows.table, {version, commitMicros}, value.view(), partitions);
  }

  #tail(
    out: Bytes,
    {op, ordinal, lsn}: {op: string} & Pick<Change, 'ordinal' | 'lsn'>,
    transaction: TransactionContext,
  ): void {
    const {epoch, commitLsn, commitMicros, xid} = transaction;
    out.bytes(
      Buffer.from(
        `,"source":{${this.#source.head}"ts_ms":${commitMicros / 1000n},${this.#source.table}"sequence":"[null,\\"${lsn}\\"]",` +
          `"ts_us":${commitMicros},"ts_ns":${commitMicros}000,"txId":${xid},"lsn":${lsn},"xmin":null,` +
          `"commit_lsn":${commitLsn},"ordinal":${ordinal},"epoch":${epoch}},"op":"${op}","ts_ms":${Date.now()},"transaction":null}`,
      ),
    );
  }

  /** After `image` of the row that is now: what it found goes into the headers. */
  #headers(change: Change, {epoch, commitLsn, commitMicros}: TransactionContext): Headers {
    const {table, unchanged, rejects} = this.rows;
    const version = rowVersion(epoch, commitLsn, change.ordinal);
    const headers: Record<string, string> = {
      [HEADER.row]: technicalColumns(version, change.op === 'd', commitMicros),
      [HEADER.schema]: table.id,
    };
    if (!change.now) return headers;
    if (unchanged.length > 0) {
      headers[HEADER.unchanged] = JSON.stringify(unchanged);
      headers[HEADER.key] = this.rows.keyText(change.now, change.old);
    }
    if (rejects.length > 0) headers[HEADER.rejects] = JSON.stringify(rejects);
    if (change.moved) headers[HEADER.moved] = '1';
    return headers;
  }
}

/** A point in the order of versions: all rows of a table below it are gone. */
export interface Horizon {
  readonly version: bigint;
  readonly commitMicros: bigint;
}

/** The horizon at the end of a resync, for every partition: an `m`, which other readers pass over. */
export function writeHorizon(batch: Batch, table: TableSchema, horizon: Horizon, partitions: number): void {
  const {schema, table: name} = table.definition;
  const source = {
    connector: 'postgresql',
    schema,
    table: name,
    ts_ms: Number(horizon.commitMicros / 1000n),
  };
  const value = Buffer.from(JSON.stringify({before: null, after: null, source, op: 'm', transaction: null}));
  addHorizon(batch, table, horizon, value, partitions);
}

function addHorizon(
  batch: Batch,
  table: TableSchema,
  {version, commitMicros}: Horizon,
  value: Buffer,
  partitions: number,
): void {
  const headers: Headers = {
    [HEADER.horizon]: `${version}`,
    [HEADER.row]: technicalColumns(version, true, commitMicros),
    [HEADER.schema]: table.id,
  };
  for (let partition = 0; partition < partitions; partition++) {
    const start = batch.bytes.length;
    batch.bytes.bytes(value);
    batch.add(table, partition, start, start, headers);
  }
}
