import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {
  HEADER,
  type Headers,
  type InMessage,
  isDeletion,
  type Line,
  type OutMessage,
  partitionOf,
} from './message.ts';

/** A message's places, and now and then more headers. */
const MESSAGE_BYTES = 64;
/** Of each message: where its key begins (none for one to every partition), its value, its row header, its end. */
const PLACES = 4;
type Places = readonly [key: number, value: number, header: number];

/**
 * Messages of one batch: their bytes lie in one buffer, and are sliced when the batch is sent. Of a message nothing else
 * is held but numbers: as objects and strings the headers of a large transaction took more memory than its rows.
 */
export class Batch {
  /** Is it handed over without a topic? Then nobody needs the envelopes of rows that can be inserted as they are. */
  readonly isDirect: boolean;
  readonly bytes: Bytes;
  readonly tables: TableSchema[] = [];
  readonly #places: number[] = [];
  /** Headers beside those that every message has. */
  readonly #more = new Map<number, Headers>();
  readonly #schemas = new Map<TableSchema, Buffer>();

  /** @param expected how many bytes it will have, where that can be known: it need not grow then. */
  constructor(expected = 0, isDirect = false) {
    this.bytes = new Bytes(Math.max(expected, 1 << 14));
    this.isDirect = isDirect;
  }

  get count(): number {
    return this.tables.length;
  }
  /** What it takes in memory, roughly; room that nothing was written to takes none. */
  get held(): number {
    return this.bytes.length + this.count * MESSAGE_BYTES;
  }

  /**
   * Ends a message that was written from `key` on: its key, its value, and from `header` on its technical columns. Of a
   * batch that is handed over directly, one without more headers is a line: the row's image, whose bracket is a comma,
   * is its value, and a newline stands behind it.
   */
  add(table: TableSchema, [key, value, header]: Places, more?: Headers): void {
    if (more) this.#more.set(this.count, more);
    this.tables.push(table);
    this.#places.push(key, value, header, this.bytes.length);
  }

  line(i: number): Line | undefined {
    if (!this.#isLine(i)) return undefined;
    return {
      bytes: this.bytes.view(this.#place(i, 1), this.#place(i, 3)),
      schemaId: this.tables[i]!.id,
    };
  }

  #isLine(i: number): boolean {
    return this.isDirect && !this.#more.has(i);
  }

  /** Null for one to every partition. */
  key(i: number): Buffer | null {
    const [start, end] = [this.#place(i, 0), this.#place(i, 1)];
    return start === end ? null : this.bytes.view(start, end);
  }

  /** Of a line an envelope with as much as a dead letter needs; whether the row was new is not known any more. */
  value(i: number): Buffer {
    const value = this.bytes.view(this.#place(i, 1), this.#place(i, 2));
    if (!this.#isLine(i)) return value;
    const image = `${value.toString('utf8', 0, value.length - 1)}}`;
    const isDeleted = isDeletion(this.headers(i)[HEADER.row]!);
    const [before, after] = isDeleted ? [image, 'null'] : ['null', image];
    const {schema, table} = this.tables[i]!.definition;
    const source = JSON.stringify({connector: 'postgresql', schema, table});
    return Buffer.from(
      `{"before":${before},"after":${after},"source":${source},"op":"${isDeleted ? 'd' : 'u'}"}`,
    );
  }

  headers(i: number): Headers {
    const table = this.tables[i]!;
    let schema = this.#schemas.get(table);
    if (!schema) {
      schema = Buffer.from(table.id);
      this.#schemas.set(table, schema);
    }
    const row = this.bytes.view(this.#place(i, 2), this.#place(i, 3) - (this.#isLine(i) ? 1 : 0));
    const more = this.#more.get(i);
    const own = {[HEADER.row]: row, [HEADER.schema]: schema};
    return more ? {...own, ...more} : own;
  }

  /** One after the other. @param partitions of a table's topic, which can have been made after the message was written. */
  *messages(partitions: (table: string) => number): Generator<OutMessage> {
    for (const [i, table] of this.tables.entries()) {
      const [key, value, headers] = [this.key(i), this.value(i), this.headers(i)];
      const count = partitions(table.name);
      if (key) yield {table, partition: partitionOf(key, count), key, value, headers};
      else
        for (let partition = 0; partition < count; partition++) yield {table, partition, key, value, headers};
    }
  }

  #place(i: number, which: number): number {
    return this.#places[PLACES * i + which]!;
  }
}

/** Messages of one table in a batch, handed over without a topic between: each is made when somebody asks for it. */
export class BatchMessages implements Iterable<InMessage> {
  readonly #batch: Batch;
  /** Offset of the first one; the others follow. */
  readonly first: bigint;
  /** Their places in the batch. */
  readonly #places: number[] = [];

  constructor(batch: Batch, first: bigint) {
    this.#batch = batch;
    this.first = first;
  }
  get count(): number {
    return this.#places.length;
  }
  push(place: number): void {
    this.#places.push(place);
  }
  at(n: number): InMessage {
    return new BatchMessage(this.#batch, this.#places[n]!, this, n);
  }
  *[Symbol.iterator](): Generator<InMessage> {
    for (let n = 0; n < this.count; n++) yield this.at(n);
  }
}

/** Nothing but its place is held. */
export class BatchMessage implements InMessage {
  readonly all: BatchMessages;
  readonly n: number;
  readonly #batch: Batch;
  readonly #i: number;

  constructor(batch: Batch, i: number, all: BatchMessages, n: number) {
    this.#batch = batch;
    this.#i = i;
    this.all = all;
    this.n = n;
  }
  get offset(): bigint {
    return this.all.first + BigInt(this.n);
  }
  get key(): Buffer | null {
    return this.#batch.key(this.#i);
  }
  get value(): Buffer {
    return this.#batch.value(this.#i);
  }
  get line(): Line | undefined {
    return this.#batch.line(this.#i);
  }
  get headers(): Headers {
    return this.#batch.headers(this.#i);
  }
}
