import {Tuple, VALUE} from './pgoutput.ts';

const TAB = 0x09;
const NEWLINE = 0x0a;
const BACKSLASH = 0x5c;
const N = 0x4e;

/** What stands for a control byte behind a backslash in COPY's text format. */
const ESCAPES = new Map([
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
  [0x76, 0x0b],
]);

/**
 * Cuts COPY's text format into rows, each given as a tuple of unescaped values: the same bytes that pgoutput sends.
 * The tuple is valid during the call alone.
 */
export class CopyTextReader {
  readonly #onRow: (row: Tuple) => void;
  readonly #tuple = new Tuple();
  #values = Buffer.allocUnsafe(1 << 14);
  /** Pieces of a row that has not ended: joined once, as a large row comes in a thousand of them. */
  #rest: Buffer[] = [];

  constructor(onRow: (row: Tuple) => void) {
    this.#onRow = onRow;
  }

  push(chunk: Buffer): void {
    this.#rest.push(chunk);
    if (!chunk.includes(NEWLINE)) return;
    const data = this.#rest.length > 1 ? Buffer.concat(this.#rest) : chunk;
    let start = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, start)) {
      this.#row(data, start, end);
      start = end + 1;
    }
    this.#rest = start < data.length ? [data.subarray(start)] : [];
  }

  #row(data: Buffer, start: number, end: number): void {
    const tuple = this.#tuple;
    if (this.#values.length < end - start) this.#values = Buffer.allocUnsafe((end - start) * 2);
    const values = this.#values;
    let count = 0;
    let to = 0;
    let begin = 0;
    let isNull = false;
    for (let at = start; at <= end; at++) {
      const byte = at === end ? TAB : data[at]!;
      if (byte === TAB) {
        tuple.kind[count] = isNull ? VALUE.null : VALUE.text;
        tuple.start[count] = begin;
        tuple.end[count] = to;
        count += 1;
        begin = to;
        isNull = false;
      } else if (byte === BACKSLASH) {
        const next = data[++at]!;
        if (next === N && to === begin) isNull = true;
        else values[to++] = ESCAPES.get(next) ?? next;
      } else values[to++] = byte;
    }
    tuple.frame = values;
    tuple.count = count;
    this.#onRow(tuple);
  }
}
