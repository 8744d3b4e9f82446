import {PipelineError} from '../failures.ts';
import type {Bytes} from '../types/bytes.ts';
import {type Tuple, VALUE} from './pgoutput.ts';
import type {TableSchema} from './table-schema.ts';

/** Debezium's own mark for a large value that PostgreSQL did not send again; our sink goes by the header. */
const UNAVAILABLE = Buffer.from('"__debezium_unavailable_value"');
const NULL = Buffer.from('null');
const COMMA = 0x2c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/** A value that ClickHouse cannot hold. */
export interface Reject {
  readonly column: string;
  readonly reason: string;
}

/**
 * The technical columns as the rest of a row's JSON object: `"_version":"…","_is_deleted":0,"_commit_ts":…}`.
 */
export const technicalColumns = (version: bigint, deleted: boolean, commitMicros: bigint): string =>
  `"_version":"${version}","_is_deleted":${deleted ? 1 : 0},"_commit_ts":${commitMicros}}`;

/** Writes rows of one table as JSON objects: the one encoder of snapshot and stream. */
export class RowEncoder {
  readonly table: TableSchema;
  readonly #slots: readonly number[];
  readonly #names: readonly Buffer[];
  /** Columns that take no NULL; the key apart, which cannot be written without a value anyway. */
  readonly #full: readonly number[];
  /** What the last call of `image` found; lists of its own for each row. */
  unchanged: string[] = [];
  rejects: Reject[] = [];

  /** @param slots for each column of the table its place in the tuples. */
  constructor(table: TableSchema, slots: readonly number[]) {
    this.table = table;
    this.#slots = slots;
    this.#names = table.columns.map(column => Buffer.from(`${JSON.stringify(column.name)}:`));
    this.#full = table.columns.flatMap(({notNull, inKey}, i) => (notNull && !inKey ? [i] : []));
  }

  /** A column that takes no NULL, and has one in this row: since when it may, nobody has told. */
  unexpectedNull(row: Tuple): string | undefined {
    for (const i of this.#full) {
      if (row.kind[this.#slots[i]!] === VALUE.null) return this.table.columns[i]!.name;
    }
    return undefined;
  }

  /**
   * The row as a JSON object, of its key columns alone where `keyOnly`. Unchanged values are taken from the old row
   * where it has them: those of the key always, the others under REPLICA IDENTITY FULL (`whole`).
   */
  image(out: Bytes, row: Tuple, keyOnly: boolean, old: Tuple | null, whole = false): void {
    const {columns} = this.table;
    if (this.unchanged.length > 0) this.unchanged = [];
    if (this.rejects.length > 0) this.rejects = [];
    let before = OPEN;
    for (let i = 0; i < columns.length; i++) {
      const column = columns[i]!;
      if (keyOnly && !column.inKey) continue;
      out.byte(before);
      before = COMMA;
      out.bytes(this.#names[i]!);
      const slot = this.#slots[i]!;
      const known = old !== null && (whole || column.inKey);
      const tuple = row.kind[slot] === VALUE.unchanged && known ? old : row;
      const kind = tuple.kind[slot];
      if (kind === VALUE.text) {
        const reason = column.stored.encode(out, tuple.frame, tuple.start[slot]!, tuple.end[slot]!);
        if (reason !== undefined) this.rejects.push({column: column.name, reason});
      } else if (kind === VALUE.null) out.bytes(NULL);
      else {
        out.bytes(UNAVAILABLE);
        this.unchanged.push(column.name);
      }
    }
    out.byte(CLOSE);
  }

  /** The key as JSON, in key order. A key stored out of line that did not change comes with the old row. */
  key(out: Bytes, row: Tuple, old: Tuple | null): void {
    let before = OPEN;
    for (const index of this.table.keyColumns) {
      out.byte(before);
      before = COMMA;
      out.bytes(this.#names[index]!);
      const slot = this.#slots[index]!;
      const tuple = this.#keyTuple(slot, row, old);
      this.table.columns[index]!.stored.encode(out, tuple.frame, tuple.start[slot]!, tuple.end[slot]!);
    }
    out.byte(CLOSE);
  }

  /** The key as PostgreSQL's text, which PostgreSQL can read back: a JSON object of strings. */
  keyText(row: Tuple, old: Tuple | null): string {
    const entries = this.table.keyColumns.map(index => {
      const slot = this.#slots[index]!;
      const tuple = this.#keyTuple(slot, row, old);
      return [
        this.table.columns[index]!.name,
        tuple.frame.toString('utf8', tuple.start[slot], tuple.end[slot]),
      ];
    });
    return JSON.stringify(Object.fromEntries(entries));
  }

  /** Has the row another key than the old one? */
  keyChanged(row: Tuple, old: Tuple): boolean {
    return this.table.keyColumns.some(index => {
      const slot = this.#slots[index]!;
      if (row.kind[slot] === VALUE.unchanged) return false;
      const [from, to] = [this.#keyTuple(slot, old, null), this.#keyTuple(slot, row, null)];
      return (
        from.frame.compare(to.frame, to.start[slot], to.end[slot], from.start[slot], from.end[slot]) !== 0
      );
    });
  }

  #keyTuple(slot: number, row: Tuple, old: Tuple | null): Tuple {
    const tuple = row.kind[slot] === VALUE.unchanged && old ? old : row;
    if (tuple.kind[slot] === VALUE.text) return tuple;
    throw new PipelineError('pg.protocol', `${this.table.name}: a row without a value in its key`, {
      table: this.table.name,
    });
  }
}
