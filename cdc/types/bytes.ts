/** From here on a buffer grows by a quarter: doubled, a full batch would hold as much again of nothing. */
const LARGE = 4 << 20;

/**
 * One growing buffer that JSON is written into. Values go from PostgreSQL's text to JSON as bytes: no string and
 * no object is made for a value.
 */
export class Bytes {
  buffer: Buffer;
  length = 0;

  constructor(capacity = 1 << 16) {
    this.buffer = Buffer.allocUnsafe(capacity);
  }

  /** Makes room for `more` bytes behind `length`. */
  ensure(more: number): void {
    const need = this.length + more;
    if (need <= this.buffer.length) return;
    const factor = this.buffer.length < LARGE ? 2 : 1.25;
    const grown = Buffer.allocUnsafe(Math.max(need, Math.ceil(this.buffer.length * factor)));
    this.buffer.copy(grown, 0, 0, this.length);
    this.buffer = grown;
  }

  byte(value: number): void {
    this.ensure(1);
    this.buffer[this.length++] = value;
  }

  bytes(source: Uint8Array): void {
    this.ensure(source.length);
    this.buffer.set(source, this.length);
    this.length += source.length;
  }

  slice(source: Buffer, start: number, end: number): void {
    this.ensure(end - start);
    source.copy(this.buffer, this.length, start, end);
    this.length += end - start;
  }

  /** Text that is known to be ASCII. */
  ascii(text: string): void {
    this.ensure(text.length);
    this.length += this.buffer.write(text, this.length, 'latin1');
  }

  view(start = 0, end = this.length): Buffer {
    return this.buffer.subarray(start, end);
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const HEX = Buffer.from('0123456789abcdef');

/** UTF-8 bytes as the inside of a JSON string: only what JSON must have escaped is. */
export function writeEscaped(out: Bytes, source: Buffer, start: number, end: number): void {
  out.ensure((end - start) * 6);
  const target = out.buffer;
  let at = out.length;
  for (let i = start; i < end; i++) {
    const byte = source[i]!;
    if (byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH) target[at++] = byte;
    else if (byte === QUOTE || byte === BACKSLASH) {
      target[at++] = BACKSLASH;
      target[at++] = byte;
    } else {
      target[at++] = BACKSLASH;
      target[at++] = 0x75; // u
      target[at++] = 0x30;
      target[at++] = 0x30;
      target[at++] = HEX[byte >> 4]!;
      target[at++] = HEX[byte & 15]!;
    }
  }
  out.length = at;
}

/** UTF-8 bytes as a JSON string. */
export function writeString(out: Bytes, source: Buffer, start: number, end: number): void {
  out.byte(QUOTE);
  writeEscaped(out, source, start, end);
  out.byte(QUOTE);
}
