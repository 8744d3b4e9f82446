import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {HEADER, type Headers, type InMessage, type OutMessage, partitionOf} from './message.ts';

/** A message's places, and now and then more headers. */
const MESSAGE_BYTES = 64;
/** Of each message: where its key begins (none for one to every partition), its value, its row header, its end. */
const PLACES = 4;

/**
 * Messages of one batch: their bytes lie in one buffer, and are sliced when the batch is sent. Of a message nothing else
 * is held but numbers: as objects and strings the headers of a large transaction took more memory than its rows.
 */
export class Batch {
  readonly bytes: Bytes;
  readonly tables: TableSchema[] = [];
  readonly #places: number[] = [];
  /** Headers beside those that every message has. */
  readonly #more = new Map<number, Headers>();
  readonly #schemas = new Map<TableSchema, Buffer>();

  /** @param expected how many bytes it will have, where that can be known: it need not grow then. */
  constructor(expected = 0) {
    this.bytes = new Bytes(Math.max(expected, 1 << 14));
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

  /** Null for one to every partition. */
  key(i: number): Buffer | null {
    const [start, end] = [this.#place(i, 0), this.#place(i, 1)];
    return start === end ? null : this.bytes.view(start, end);
  }

  value(i: number): Buffer {
    return this.bytes.view(this.#place(i, 1), this.#place(i, 2));
  }

  headers(i: number): Headers {
    const table = this.tables[i]!;
    let schema = this.#schemas.get(table);
    if (!schema) {
      schema = Buffer.from(table.id);
      this.#schemas.set(table, schema);
    }
    const row = this.bytes.view(this.#place(i, 2), this.#place(i, 3));
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
  get headers(): Headers {
    return this.#batch.headers(this.#i);
  }
}
