const MIB = 1 << 20;
/**
 * Sizes of buffers that are used again, ascending: two of them have room for a full batch of capture and a full insert.
 * What is smaller doubles, what is larger has just its size.
 */
const SIZES = [0.25, 0.5, 1, 2.5, 5, 9, 16].map(mebibytes => mebibytes * MIB);
/** Free ones are kept up to so many bytes. */
const MOST_FREE = 12 * MIB;

/**
 * Large buffers that nobody needs any more, the last one that was given back at the end. A new one is memory that the
 * system has to clear first, and one that was left lies around until all garbage is collected: of full batches three
 * times as much as is in use.
 */
const free: Buffer[] = [];
let freeBytes = 0;

function bufferOf(least: number): Buffer {
  if (least <= SIZES[0]! / 2) return Buffer.allocUnsafe(least);
  const size = SIZES.find(candidate => candidate >= least) ?? least;
  const at = free.findLastIndex(buffer => buffer.length === size);
  if (at < 0) return Buffer.allocUnsafeSlow(size);
  freeBytes -= size;
  return free.splice(at, 1)[0]!;
}

/** For those that were not used for longest there is no room any more. */
function giveBack(buffer: Buffer): void {
  if (!SIZES.includes(buffer.length)) return;
  free.push(buffer);
  freeBytes += buffer.length;
  while (freeBytes > MOST_FREE) freeBytes -= free.shift()!.length;
}

/** Do these bytes stand at that place? */
export function stands(bytes: Buffer, wanted: Buffer, place: number): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[place + i] !== wanted[i]) return false;
  return true;
}

const NONE = Buffer.alloc(0);
/** So few bytes are copied faster one by one than by a call. */
const FEW = 32;
/** Numbers of so many digits are counted as small integers, which is faster. */
const SMALL_DIGITS = 9;
const SMALL = 10 ** SMALL_DIGITS;

/**
 * One growing buffer that JSON is written into. Values go from PostgreSQL's text to JSON as bytes: no string and
 * no object is made for a value.
 */
export class Bytes {
  buffer: Buffer;
  length = 0;

  constructor(capacity = 1 << 16) {
    this.buffer = bufferOf(capacity);
  }

  /**
   * To be called when nobody will read what was written, nor any view of it: the memory is another's from now on. Never
   * where that is not certain, as when a request failed that may still be on its way.
   */
  release(): void {
    giveBack(this.buffer);
    this.buffer = NONE;
    this.length = 0;
  }

  /** Makes room for `more` bytes behind `length`. Views from before do not hold from then on. */
  ensure(more: number): void {
    const need = this.length + more;
    const {buffer} = this;
    if (need <= buffer.length) return;
    // Of the sizes the next one is enough: doubled, a full batch would hold as much again of nothing.
    const wanted = buffer.length < SIZES[1]! ? buffer.length * 2 : buffer.length * 1.25;
    this.buffer = bufferOf(Math.max(need, Math.ceil(wanted)));
    buffer.copy(this.buffer, 0, 0, this.length);
    giveBack(buffer);
  }

  byte(value: number): void {
    this.ensure(1);
    this.buffer[this.length++] = value;
  }

  bytes(source: Uint8Array): void {
    const {length} = source;
    this.ensure(length);
    if (length > FEW) this.buffer.set(source, this.length);
    else for (let i = 0; i < length; i++) this.buffer[this.length + i] = source[i]!;
    this.length += length;
  }

  slice(source: Buffer, start: number, end: number): void {
    const length = end - start;
    this.ensure(length);
    if (length > FEW) source.copy(this.buffer, this.length, start, end);
    else for (let i = 0; i < length; i++) this.buffer[this.length + i] = source[start + i]!;
    this.length += length;
  }

  /** Writes a number over a place that has so many digits, with zeros in front; it is safe, and not negative. */
  digitsAt(place: number, count: number, value: number): void {
    let rest = value;
    let digits = count;
    if (count > SMALL_DIGITS) {
      const above = Math.floor(value / SMALL);
      this.digitsAt(place, count - SMALL_DIGITS, above);
      rest = value - above * SMALL;
      digits = SMALL_DIGITS;
    }
    const end = place + count;
    for (let at = end - 1; at >= end - digits; at--) {
      const tens = (rest / 10) | 0;
      this.buffer[at] = 0x30 + rest - tens * 10;
      rest = tens;
    }
  }

  /** Text that is known to be ASCII. */
  ascii(text: string): void {
    this.ensure(text.length);
    this.length += this.buffer.write(text, this.length, 'latin1');
  }

  /** Holds until more is written, or it is released. */
  view(start = 0, end = this.length): Buffer {
    return this.buffer.subarray(start, end);
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const HEX = Buffer.from('0123456789abcdef');

/** Text of more bytes than this is looked through first, and copied at once where nothing must be escaped. */
const LONG = 64;

/** UTF-8 bytes as the inside of a JSON string: only what JSON must have escaped is. */
export function writeEscaped(out: Bytes, source: Buffer, start: number, end: number): void {
  let at = start;
  while (end - at > LONG) {
    const clean = nextEscaped(source, at, end);
    out.slice(source, at, clean);
    at = Math.min(clean + LONG, end); // where there is one there are often more
    escapeEach(out, source, clean, at);
  }
  escapeEach(out, source, at, end);
}

/** Where the next byte is that JSON must have escaped; `end` where there is none. Looks at four at a time. */
function nextEscaped(source: Buffer, start: number, end: number): number {
  const view = new DataView(source.buffer, source.byteOffset, source.length);
  let at = start;
  for (; at + 4 <= end; at += 4) {
    const four = view.getInt32(at, true);
    const quotes = four ^ 0x22222222;
    const backslashes = four ^ 0x5c5c5c5c;
    // A byte below n makes `(four - n) & ~four` negative in its eighth bit. One above such a byte may do so too.
    const found =
      ((four - 0x20202020) & ~four) |
      ((quotes - 0x01010101) & ~quotes) |
      ((backslashes - 0x01010101) & ~backslashes);
    if ((found & 0x80808080) === 0) continue;
    for (let i = at; i < at + 4; i++) if (isEscaped(source[i]!)) return i;
  }
  while (at < end && !isEscaped(source[at]!)) at++;
  return at;
}

const isEscaped = (byte: number): boolean => byte < 0x20 || byte === QUOTE || byte === BACKSLASH;

function escapeEach(out: Bytes, source: Buffer, start: number, end: number): void {
  out.ensure((end - start) * 6);
  const target = out.buffer;
  let at = out.length;
  for (let i = start; i < end; i++) {
    const byte = source[i]!;
    if (!isEscaped(byte)) target[at++] = byte;
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
