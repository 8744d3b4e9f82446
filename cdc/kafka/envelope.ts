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
  /** `r`: a row that a snapshot read. */
  readonly op: 'c' | 'u' | 'd' | 'r';
  /** The old row where PostgreSQL sent one: all of it (`whole`), or its key alone. */
  readonly old: Tuple | null;
  readonly whole: boolean;
  readonly now: Tuple | null;
  readonly ordinal: number;
  readonly lsn: Lsn;
  /** The row had another key before. */
  readonly moved: boolean;
}

/** A message's places, and now and then more headers. */
const MESSAGE_BYTES = 64;

/**
 * Messages of one batch: their bytes lie in one buffer, and are sliced when the batch is sent. Of a message nothing else
 * is held but numbers: as objects and strings the headers of a large transaction took more memory than its rows.
 */
export class Batch {
  readonly bytes: Bytes;
  readonly #tables: TableSchema[] = [];
  /** Four for each message: where its key begins (none for one to every partition), its value, its row header, its end. */
  readonly #places: number[] = [];
  /** Headers beside those that every message has. */
  readonly #more = new Map<number, Headers>();

  /** @param expected how many bytes it will have, where that can be known: it need not grow then. */
  constructor(expected = 0) {
    this.bytes = new Bytes(Math.max(expected, 1 << 14));
  }

  get count(): number {
    return this.#tables.length;
  }
  /** What it takes in memory, roughly; room that nothing was written to takes none. */
  get held(): number {
    return this.bytes.length + this.count * MESSAGE_BYTES;
  }

  /** Ends a message whose key and value were written, with its technical columns. */
  add(table: TableSchema, key: number, value: number, technical: string, more?: Headers): void {
    const header = this.bytes.length;
    this.bytes.ascii(technical);
    if (more) this.#more.set(this.#tables.length, more);
    this.#tables.push(table);
    this.#places.push(key, value, header, this.bytes.length);
  }

  /** One after the other. @param partitions of a table's topic, which can have been made after the message was written. */
  *messages(partitions: (table: string) => number): Generator<OutMessage> {
    const schemas = new Map<TableSchema, Buffer>();
    for (const [i, table] of this.#tables.entries()) {
      const at = (place: number): number => this.#places[4 * i + place]!;
      const schema = schemas.get(table) ?? Buffer.from(table.id);
      schemas.set(table, schema);
      const row = this.bytes.view(at(2), at(3));
      const headers: Headers = {[HEADER.row]: row, [HEADER.schema]: schema, ...this.#more.get(i)};
      const message = {table, headers, value: this.bytes.view(at(1), at(2))};
      const count = partitions(table.name);
      if (at(0) === at(1))
        for (let partition = 0; partition < count; partition++) yield {...message, partition, key: null};
      else {
        const key = this.bytes.view(at(0), at(1));
        yield {...message, partition: partitionOf(key, count), key};
      }
    }
  }
}

/** From so many bytes on a message may be too large for a topic; its values would then be asked for by its key. */
const LARGE = 64 << 10;

/** Writes Debezium's JSON envelope (schemas off) of one table's changes, straight from the bytes of the tuples. */
export class EnvelopeWriter {
  readonly rows: RowEncoder;
  readonly #source: {readonly head: string; readonly table: string};

  constructor(
    rows: RowEncoder,
    {prefix, database, snapshot = false}: {prefix: string; database: string; snapshot?: boolean},
  ) {
    const {schema, table} = rows.table.definition;
    this.rows = rows;
    this.#source = {
      head: `"version":"1.0","connector":"postgresql","name":${JSON.stringify(prefix)},`,
      table: `"snapshot":"${snapshot}","db":${JSON.stringify(database)},"schema":${JSON.stringify(schema)},"table":${JSON.stringify(table)},`,
    };
  }

  /** Appends one change to the batch. Throws `pg.protocol` where a key is not known. */
  write(batch: Batch, change: Change, transaction: TransactionContext): void {
    const out = batch.bytes;
    const keyStart = out.length;
    const row = change.now ?? change.old;
    if (!row) throw new PipelineError('internal', 'a change without a row');
    this.rows.key(out, row, change.old);
    const valueStart = out.length;
    out.ascii('{"before":');
    if (change.old && change.op !== 'c') this.rows.image(out, change.old, !change.whole, null);
    else out.ascii('null');
    out.ascii(',"after":');
    if (change.now) this.rows.image(out, change.now, false, change.old, change.whole);
    else out.ascii('null');
    this.#tail(out, change, transaction);
    const large = out.length - valueStart > LARGE;
    const version = rowVersion(transaction.epoch, transaction.commitLsn, change.ordinal);
    const technical = technicalColumns(version, change.op === 'd', transaction.commitMicros);
    batch.add(this.rows.table, keyStart, valueStart, technical, this.#headers(change, large));
  }

  /** Appends a TRUNCATE: one message for each partition, behind that partition's older rows. */
  truncate(batch: Batch, at: Pick<Change, 'ordinal' | 'lsn'>, transaction: TransactionContext): void {
    const {epoch, commitLsn, commitMicros} = transaction;
    const value = new Bytes(1 << 10);
    value.ascii('{"before":null,"after":null');
    this.#tail(value, {...at, op: 't'}, transaction);
    const version = rowVersion(epoch, commitLsn, at.ordinal);
    addHorizon(batch, this.rows.table, {version, commitMicros}, value.view());
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

  /** After `image` of the row that is now, or of the deleted one: what it found goes into the headers. */
  #headers(change: Change, large: boolean): Headers | undefined {
    const {unchanged, rejects} = this.rows;
    const headers: Record<string, string> = {};
    if (rejects.length > 0) headers[HEADER.rejects] = JSON.stringify(rejects);
    if (change.now) {
      if (unchanged.length > 0) headers[HEADER.unchanged] = JSON.stringify(unchanged);
      if (unchanged.length > 0 || large) headers[HEADER.key] = this.rows.keyText(change.now, change.old);
      if (change.moved) headers[HEADER.moved] = '1';
    }
    return Object.keys(headers).length > 0 ? headers : undefined;
  }
}

/** A point in the order of versions: all rows of a table below it are gone. */
export interface Horizon {
  readonly version: bigint;
  readonly commitMicros: bigint;
}

/** The horizon at the end of a resync, for every partition: an `m`, which other readers pass over. */
export function writeHorizon(batch: Batch, table: TableSchema, horizon: Horizon): void {
  const {schema, table: name} = table.definition;
  const source = {
    connector: 'postgresql',
    schema,
    table: name,
    ts_ms: Number(horizon.commitMicros / 1000n),
  };
  const value = Buffer.from(JSON.stringify({before: null, after: null, source, op: 'm', transaction: null}));
  addHorizon(batch, table, horizon, value);
}

function addHorizon(batch: Batch, table: TableSchema, {version, commitMicros}: Horizon, value: Buffer): void {
  const start = batch.bytes.length;
  batch.bytes.bytes(value);
  batch.add(table, start, start, technicalColumns(version, true, commitMicros), {
    [HEADER.horizon]: `${version}`,
  });
}
