import {compressionsAlgorithms, crc32c} from '@platformatic/kafka';
import {decompressed, free, ZSTD} from '../compression.ts';
import {PipelineError} from '../failures.ts';
import {stands} from '../types/bytes.ts';
import {HEADER, type InMessage} from './message.ts';
import {AT, MAGIC} from './record-batch.ts';

/** Of a batch's attributes. */
const CODEC = 0x07;
const IS_CONTROL = 0x20;
const NONE = 0;

/** The part of a partition's log that a fetch brought: whole batches of records, the last one perhaps cut off. */
export class FetchedRecords {
  readonly #bytes: Buffer;
  /** The offset that was asked for. */
  readonly from: bigint;
  /** Offset of the first record that is wanted; more than asked for where some are missing. */
  readonly first: bigint;
  /** Offset behind the last whole batch. */
  readonly next: bigint;

  /**
   * @param from the batch that has this offset may begin before.
   * Throws `kafka.unavailable` where the bytes are damaged.
   */
  constructor(bytes: Buffer, from: bigint) {
    this.#bytes = bytes;
    this.from = from;
    let first: bigint | undefined;
    let next = from;
    for (const at of this.#batches()) {
      const base = bytes.readBigInt64BE(at);
      next = base + BigInt(bytes.readInt32BE(at + AT.lastOffsetDelta)) + 1n;
      first ??= base;
    }
    this.first = first === undefined || first < from ? from : first;
    this.next = next;
  }

  /** Where whole batches begin. */
  *#batches(): Generator<number> {
    const bytes = this.#bytes;
    for (let at = 0; at + AT.records <= bytes.length; ) {
      const end = at + AT.leaderEpoch + bytes.readInt32BE(at + AT.length);
      if (end > bytes.length) return;
      if (bytes[at + AT.magic] !== MAGIC || end < at + AT.records) throw damaged('not a record batch');
      yield at;
      at = end;
    }
  }

  /** One batch after another: what lies compressed in all of them may be more than there is room for. */
  *batches(): Generator<FetchedRecords> {
    let from = this.from;
    for (const at of this.#batches()) {
      const end = at + AT.leaderEpoch + this.#bytes.readInt32BE(at + AT.length);
      const batch = new FetchedRecords(this.#bytes.subarray(at, end), from);
      yield batch;
      from = batch.next;
    }
  }

  /**
   * Those of other writers among them; their bytes hold until the last one was taken. Throws `kafka.unavailable` where a
   * batch is not what its checksum says.
   */
  *messages(): Generator<InMessage> {
    const bytes = this.#bytes;
    for (const at of this.#batches()) {
      const end = at + AT.leaderEpoch + bytes.readInt32BE(at + AT.length);
      if (bytes.readUInt32BE(at + AT.crc) !== crc32c(bytes.subarray(at + AT.attributes, end)))
        throw damaged('a batch is not what its checksum says');
      const attributes = bytes.readInt16BE(at + AT.attributes);
      if (attributes & IS_CONTROL) continue;
      const stored = bytes.subarray(at + AT.records, end);
      const plain = unpacked(stored, attributes & CODEC);
      const records = new RecordReader(plain);
      const base = bytes.readBigInt64BE(at);
      for (let left = bytes.readInt32BE(at + AT.count); left > 0; left--) {
        const message = records.next(base);
        if (message.offset >= this.from) yield message;
      }
      if ((attributes & CODEC) === ZSTD) free(plain);
    }
  }
}

const damaged = (what: string): PipelineError =>
  new PipelineError('kafka.unavailable', `an answer of Kafka is damaged: ${what}`);

/** Ours are compressed in one way; brokers can be told to do it in another. */
function unpacked(bytes: Buffer, codec: number): Buffer {
  if (codec === NONE) return bytes;
  const algorithm = Object.values(compressionsAlgorithms).find(({bitmask}) => bitmask === codec);
  if (!algorithm) throw damaged(`records are compressed in way ${codec}`);
  try {
    return codec === ZSTD ? decompressed(bytes) : algorithm.decompressSync(bytes);
  } catch (error) {
    throw damaged(String(error));
  }
}

/** Names that are told by their bytes: no string is made for them. */
const NAMES = Object.values(HEADER).map(name => ({name, bytes: Buffer.from(name)}));

/** Reads one record after another (https://kafka.apache.org/documentation/#record). */
class RecordReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  next(base: bigint): InMessage {
    const bytes = this.#bytes;
    const length = this.#varint();
    const end = this.#at + length;
    if (length < 0 || end > bytes.length) throw damaged('a record has no end');
    this.#at += 1; // attributes
    while (bytes[this.#at++]! & 0x80); // its time, which may have more than 32 bits
    const offset = base + BigInt(this.#varint());
    const keyLength = this.#varint();
    const keyStart = this.#at;
    if (keyLength > 0) this.#at += keyLength;
    const value = this.#slice();
    const headers: Record<string, Buffer | undefined> = {};
    for (let left = this.#varint(); left > 0; left--) {
      const nameLength = this.#varint();
      const name = this.#name(this.#at, nameLength);
      this.#at += nameLength;
      headers[name] = this.#slice() ?? undefined; // of those that occur twice the last one counts
    }
    if (this.#at !== end) throw damaged('a record is longer than it says');
    return new Fetched(offset, value, headers, {bytes, start: keyStart, length: keyLength});
  }

  #slice(): Buffer | null {
    const length = this.#varint();
    if (length < 0) return null;
    const start = this.#at;
    this.#at += length;
    return this.#bytes.subarray(start, this.#at);
  }

  #name(start: number, length: number): string {
    for (const {name, bytes} of NAMES) {
      if (bytes.length === length && stands(this.#bytes, bytes, start)) return name;
    }
    return this.#bytes.toString('utf8', start, start + length);
  }

  /** Signed, seven bits a byte, small where it is near zero. */
  #varint(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return (value >>> 1) ^ -(value & 1);
    }
    throw damaged('a number has no end');
  }
}

interface KeyPlace {
  readonly bytes: Buffer;
  readonly start: number;
  /** Below zero for none. */
  readonly length: number;
}

/**
 * With its parts as views. Places in the bytes instead of views are fewer objects, and made a sink take twice the time:
 * V8 then has no reason for a collection of the young objects, by which it frees what the sockets have read, and frees
 * that by full collections (Node 24).
 */
class Fetched implements InMessage {
  readonly offset: bigint;
  readonly value: Buffer | null;
  readonly headers: InMessage['headers'];
  readonly #key: KeyPlace;

  constructor(offset: bigint, value: Buffer | null, headers: InMessage['headers'], key: KeyPlace) {
    this.offset = offset;
    this.value = value;
    this.headers = headers;
    this.#key = key;
  }
  /** Few are asked for it. */
  get key(): Buffer | null {
    const {bytes, start, length} = this.#key;
    return length < 0 ? null : bytes.subarray(start, start + length);
  }
}
