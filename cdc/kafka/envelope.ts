import {PipelineError} from '../failures.ts';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import {type Tuple, VALUE} from '../source/pgoutput.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {writeJsString} from '../types/encode.ts';
import {HEADER, type Headers, type OutMessage, partitionOf} from './message.ts';

/** Debezium's own mark for a large value that PostgreSQL did not send again; our sink goes by the header. */
const UNAVAILABLE = Buffer.from('"__debezium_unavailable_value"');
const NULL = Buffer.from('null');
const COMMA = 0x2c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** What all events of one transaction share. */
export interface TransactionContext {
  readonly epoch: number;
  readonly commitLsn: Lsn;
  /** µs since 1970-01-01 UTC */
  readonly commitMicros: bigint;
  readonly xid: number;
  readonly snapshot: boolean;
}

export interface Change {
  readonly op: 'c' | 'u' | 'd' | 'r';
  /** The old row where PostgreSQL sent one: all of it (`whole`), or its key alone. */
  readonly old: Tuple | null;
  readonly whole: boolean;
  readonly now: Tuple | null;
  readonly ordinal: number;
  readonly lsn: Lsn;
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

/**
 * Writes Debezium's JSON envelope (schemas off) of one table's changes, straight from the bytes of the tuples.
 *
 * @param slots for each column of the table its place in the tuples.
 */
export class EnvelopeWriter {
  readonly table: TableSchema;
  readonly #slots: readonly number[];
  readonly #names: readonly Buffer[];
  readonly #source: {readonly head: string; readonly table: string};
  #unchanged: string[] = [];
  #rejects: {column: string; reason: string}[] = [];

  constructor(table: TableSchema, slots: readonly number[], origin: {prefix: string; database: string}) {
    this.table = table;
    this.#slots = slots;
    this.#names = table.columns.map(column => Buffer.from(`${JSON.stringify(column.name)}:`));
    const {schema, table: name} = table.definition;
    this.#source = {
      head: `"version":"1.0","connector":"postgresql","name":${JSON.stringify(origin.prefix)},"db":${JSON.stringify(origin.database)},`,
      table: `"schema":${JSON.stringify(schema)},"table":${JSON.stringify(name)},`,
    };
  }

  /** Appends one change to the batch. Throws `pg.protocol` where a key is not known. */
  write(batch: Batch, change: Change, transaction: TransactionContext, partitions: number): void {
    const out = batch.bytes;
    const keyStart = out.length;
    const image = change.now ?? change.old;
    if (!image) throw new PipelineError('internal', 'a change without a row');
    this.#unchanged = [];
    this.#rejects = [];
    this.#key(out, image, change.old);
    const valueStart = out.length;
    const partition = partitionOf(out.view(keyStart, valueStart), partitions);
    this.#envelope(out, change, transaction);
    batch.add(this.table, partition, keyStart, valueStart, this.#headers(change, transaction));
  }

  #headers(change: Change, {epoch, commitLsn, commitMicros}: TransactionContext): Headers {
    const deleted = change.op === 'd' ? 1 : 0;
    const version = rowVersion(epoch, commitLsn, change.ordinal);
    const headers: Record<string, string> = {
      [HEADER.row]: `"_version":"${version}","_is_deleted":${deleted},"_commit_ts":${commitMicros}}`,
      [HEADER.schema]: this.table.id,
    };
    if (change.op !== 'd') {
      if (this.#unchanged.length > 0 && change.now) {
        headers[HEADER.unchanged] = JSON.stringify(this.#unchanged);
        headers[HEADER.key] = JSON.stringify(this.#keyText(change.now, change.old));
      }
      if (this.#rejects.length > 0) headers[HEADER.rejects] = JSON.stringify(this.#rejects);
      if (change.moved) headers[HEADER.moved] = '1';
    }
    return headers;
  }

  #envelope(out: Bytes, change: Change, transaction: TransactionContext): void {
    const {epoch, commitLsn, commitMicros, xid, snapshot} = transaction;
    out.ascii('{"before":');
    if (change.old && change.op !== 'c') this.#image(out, change.old, !change.whole, null);
    else out.bytes(NULL);
    // What the old row could not tell is no fact about the row that is now.
    this.#unchanged = [];
    this.#rejects = [];
    out.ascii(',"after":');
    if (change.now) this.#image(out, change.now, false, change.whole ? change.old : null);
    else out.bytes(NULL);
    const millis = commitMicros / 1000n;
    out.bytes(
      Buffer.from(
        `,"source":{${this.#source.head}"ts_ms":${millis},"snapshot":"${snapshot}","sequence":"[null,\\"${change.lsn}\\"]",` +
          `"ts_us":${commitMicros},"ts_ns":${commitMicros}000,${this.#source.table}"txId":${xid},"lsn":${change.lsn},"xmin":null,` +
          `"commit_lsn":${commitLsn},"ordinal":${change.ordinal},"epoch":${epoch}},"op":"${change.op}","ts_ms":${Date.now()},"transaction":null}`,
      ),
    );
  }

  #key(out: Bytes, image: Tuple, old: Tuple | null): void {
    let first = true;
    for (const index of this.table.keyColumns) {
      out.byte(first ? OPEN : COMMA);
      first = false;
      out.bytes(this.#names[index]!);
      const slot = this.#slots[index]!;
      // A key that is stored out of line and did not change comes with the old row.
      const tuple = image.kind[slot] === VALUE.unchanged && old ? old : image;
      if (tuple.kind[slot] !== VALUE.text) {
        throw new PipelineError('pg.protocol', `${this.table.name}: a row without a value in its key`);
      }
      this.table.columns[index]!.stored.encode(out, tuple.frame, tuple.start[slot]!, tuple.end[slot]!);
    }
    out.byte(CLOSE);
  }

  /** The key as PostgreSQL's text, which PostgreSQL itself can read back. */
  #keyText(image: Tuple, old: Tuple | null): Record<string, string> {
    return Object.fromEntries(
      this.table.keyColumns.map(index => {
        const slot = this.#slots[index]!;
        const tuple = image.kind[slot] === VALUE.unchanged && old ? old : image;
        return [
          this.table.columns[index]!.name,
          tuple.frame.toString('utf8', tuple.start[slot], tuple.end[slot]),
        ];
      }),
    );
  }

  #image(out: Bytes, row: Tuple, keyOnly: boolean, fallback: Tuple | null): void {
    const {columns} = this.table;
    let first = true;
    for (let i = 0; i < columns.length; i++) {
      const column = columns[i]!;
      if (keyOnly && !column.inKey) continue;
      out.byte(first ? OPEN : COMMA);
      first = false;
      out.bytes(this.#names[i]!);
      const slot = this.#slots[i]!;
      const tuple = row.kind[slot] === VALUE.unchanged && fallback ? fallback : row;
      const kind = tuple.kind[slot];
      if (kind === VALUE.text) {
        const reason = column.stored.encode(out, tuple.frame, tuple.start[slot]!, tuple.end[slot]!);
        if (reason !== undefined) this.#rejects.push({column: column.name, reason});
      } else if (kind === VALUE.null) out.bytes(NULL);
      else {
        out.bytes(UNAVAILABLE);
        this.#unchanged.push(column.name);
      }
    }
    out.byte(CLOSE);
  }
}

/**
 * A horizon for every partition of a table: all its rows below the version are gone. A TRUNCATE is Debezium's `t`;
 * the end of a resync is an `m`, which readers of other people pass over.
 */
export function writeHorizon(
  batch: Batch,
  table: TableSchema,
  horizon: {version: bigint; commitMicros: bigint; truncate: boolean},
  partitions: number,
): void {
  const {schema, table: name} = table.definition;
  const headers: Headers = {
    [HEADER.horizon]: `${horizon.version}`,
    [HEADER.row]: `"_version":"${horizon.version}","_is_deleted":1,"_commit_ts":${horizon.commitMicros}}`,
    [HEADER.schema]: table.id,
  };
  for (let partition = 0; partition < partitions; partition++) {
    const start = batch.bytes.length;
    batch.bytes.ascii('{"before":null,"after":null,"source":{"connector":"postgresql","schema":');
    writeJsString(batch.bytes, schema);
    batch.bytes.ascii(',"table":');
    writeJsString(batch.bytes, name);
    batch.bytes.ascii(
      `,"ts_ms":${horizon.commitMicros / 1000n}},"op":"${horizon.truncate ? 't' : 'm'}","transaction":null}`,
    );
    batch.add(table, partition, start, start, headers);
  }
}
