import {PipelineError} from '../failures.ts';
import type {Lsn} from '../source/lsn.ts';
import type {Tuple} from '../source/pgoutput.ts';
import {type RowEncoder, technicalColumns} from '../source/row-encoder.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import type {Batch} from './batch.ts';
import {EnvelopeTail} from './envelope-tail.ts';
import {HEADER, type Headers} from './message.ts';
import type {Transaction} from './transaction.ts';

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

const BEFORE = Buffer.from('{"before":');
const AFTER = Buffer.from(',"after":');
const NULL = Buffer.from('null');
const COMMA = 0x2c;
const NEWLINE = 0x0a;

/** From so many bytes on a message may be too large for a topic; its values would then be asked for by its key. */
const LARGE = 64 << 10;

/** Writes Debezium's JSON envelope (schemas off) of one table's changes, straight from the bytes of the tuples. */
export class EnvelopeWriter {
  readonly rows: RowEncoder;
  readonly #tail: EnvelopeTail;

  constructor(
    rows: RowEncoder,
    {prefix, database, snapshot = false}: {prefix: string; database: string; snapshot?: boolean},
  ) {
    const {schema, table} = rows.table.definition;
    this.rows = rows;
    this.#tail = new EnvelopeTail(
      `,"source":{"version":"1.0","connector":"postgresql","name":${JSON.stringify(prefix)},`,
      `"snapshot":"${snapshot}","db":${JSON.stringify(database)},"schema":${JSON.stringify(schema)},"table":${JSON.stringify(table)},`,
    );
  }

  /** Appends one change to the batch. Throws `pg.protocol` where a key is not known. */
  write(batch: Batch, change: Change, transaction: Transaction): void {
    const out = batch.bytes;
    const keyStart = out.length;
    const row = change.now ?? change.old;
    if (!row) throw new PipelineError('internal', 'a change without a row');
    this.rows.key(out, row, change.old);
    const valueStart = out.length;
    if (batch.isDirect && this.#line(batch, change, keyStart, transaction)) return;
    out.bytes(BEFORE);
    if (change.old && change.op !== 'c') this.rows.image(out, change.old, !change.whole, null);
    else out.bytes(NULL);
    out.bytes(AFTER);
    if (change.now) this.rows.image(out, change.now, false, change.old, change.whole);
    else out.bytes(NULL);
    this.#tail.write(out, change, transaction);
    const large = !batch.isDirect && out.length - valueStart > LARGE;
    const header = out.length;
    transaction.technical(out, change.ordinal, change.op === 'd');
    batch.add(this.rows.table, [keyStart, valueStart, header], this.#headers(change, large));
  }

  /** Appends the row that is now, or the deleted one's key, without an envelope; false where something else must be told. */
  #line(batch: Batch, change: Change, key: number, transaction: Transaction): boolean {
    const out = batch.bytes;
    const start = out.length;
    if (change.now) this.rows.image(out, change.now, false, change.old, change.whole);
    else if (change.old) this.rows.image(out, change.old, true, null);
    if (this.#headers(change, false)) {
      out.length = start;
      return false;
    }
    out.buffer[out.length - 1] = COMMA; // in place of the image's bracket
    const header = out.length;
    transaction.technical(out, change.ordinal, change.op === 'd');
    out.byte(NEWLINE);
    batch.add(this.rows.table, [key, start, header]);
    return true;
  }

  /** Appends a TRUNCATE: one message for each partition, behind that partition's older rows. */
  truncate(batch: Batch, at: Pick<Change, 'ordinal' | 'lsn'>, transaction: Transaction): void {
    const value = new Bytes(1 << 10);
    value.ascii('{"before":null,"after":null');
    this.#tail.write(value, {...at, op: 't'}, transaction);
    const {commitMicros} = transaction;
    const version = transaction.version(at.ordinal);
    addHorizon(batch, this.rows.table, {version, commitMicros}, value.view());
  }

  /** After `image` of the row that is now, or of the deleted one: what it found goes into the headers. */
  #headers(change: Change, large: boolean): Headers | undefined {
    const {unchanged, rejects} = this.rows;
    if (rejects.length + unchanged.length === 0 && !large && !change.moved) return undefined;
    const headers: Record<string, Buffer> = {};
    const add = (header: string, text: string): void => {
      headers[header] = Buffer.from(text);
    };
    if (rejects.length > 0) add(HEADER.rejects, JSON.stringify(rejects));
    if (change.now) {
      if (unchanged.length > 0) add(HEADER.unchanged, JSON.stringify(unchanged));
      if (unchanged.length > 0 || large) add(HEADER.key, this.rows.keyText(change.now, change.old));
      if (change.moved) add(HEADER.moved, '1');
    }
    return headers;
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
  const header = batch.bytes.length;
  batch.bytes.ascii(technicalColumns(version, true, commitMicros));
  batch.add(table, [start, start, header], {[HEADER.horizon]: Buffer.from(`${version}`)});
}
