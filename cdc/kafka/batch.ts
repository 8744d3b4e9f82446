import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {HEADER, type Headers, type InMessage, type Line, type OutMessage, partitionOf} from './message.ts';

/** A message's places, and now and then more headers. */
const MESSAGE_BYTES = 64;
/** Of each message: where its key begins (none for one to every partition), its value, its row header, its end. */
const PLACES = 4;
const CLOSE = '}';
const COMMA = 0x2c;
const NEWLINE = 0x0a;

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

  /** Ends a message whose key and value were written, with its technical columns. */
  add(table: TableSchema, key: number, value: number, technical: string, more?: Headers): void {
    const header = this.bytes.length;
    this.bytes.ascii(technical);
    if (more) this.#more.set(this.count, more);
    this.tables.push(table);
    this.#places.push(key, value, header, this.bytes.length);
  }

  /** Ends a row that has no other headers: a line, whose image was written in place of a value. */
  addLine(table: TableSchema, key: number, image: number, technical: string): void {
    this.bytes.length -= CLOSE.length;
    this.bytes.byte(COMMA);
    const header = this.bytes.length;
    this.bytes.ascii(technical);
    this.bytes.byte(NEWLINE);
    this.tables.push(table);
    this.#places.push(key, image, header, this.bytes.length);
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

  /** Of a line an envelope with as much as a dead letter needs. */
  value(i: number): Buffer {
    const value = this.bytes.view(this.#place(i, 1), this.#place(i, 2));
    if (!this.#isLine(i)) return value;
    const image = `${value.toString('utf8', 0, value.length - 1)}${CLOSE}`;
    const isDeleted = this.headers(i)[HEADER.row]!.includes('"_is_deleted":1');
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

/** A message that is handed over without a topic between: nothing but its place is held until somebody asks. */
export class BatchMessage implements InMessage {
  readonly offset: bigint;
  readonly #batch: Batch;
  readonly #i: number;

  constructor(batch: Batch, i: number, offset: bigint) {
    this.#batch = batch;
    this.#i = i;
    this.offset = offset;
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
