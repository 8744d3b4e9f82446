import {crc32c} from '@platformatic/kafka';
import {smaller, ZSTD} from '../compression.ts';
import {Bytes} from '../types/bytes.ts';
import type {Records, Sendable} from './producer.ts';

/** Who writes, and which of its messages in this partition the first one is: so a broker takes none of them twice. */
export interface Writer {
  readonly producerId: bigint;
  readonly producerEpoch: number;
  readonly sequence: number;
}

/** Places in a batch's head (https://kafka.apache.org/documentation/#recordbatch), which is as long as `records` says. */
export const AT = {
  length: 8,
  leaderEpoch: 12,
  magic: 16,
  crc: 17,
  attributes: 21,
  lastOffsetDelta: 23,
  firstTimestamp: 27,
  lastTimestamp: 35,
  producerId: 43,
  producerEpoch: 51,
  sequence: 53,
  count: 57,
  records: 61,
} as const;
export const MAGIC = 2;
const VARINT_BYTES = 5;
/** Length, attributes, the two deltas, the lengths of key and value, and how many headers there are. */
const RECORD_BYTES = 1 + 6 * VARINT_BYTES;

/** Messages of one partition as a record batch of Kafka's format 2. They are written as they come. */
export class RecordBatch implements Records {
  readonly #out = new Bytes(1 << 12);
  readonly #compresses: boolean;
  count = 0;

  constructor(compresses = false) {
    this.#compresses = compresses;
    this.#out.length = AT.records;
  }

  add({key, value, headers}: Sendable): void {
    const out = this.#out;
    let most = RECORD_BYTES + (key?.length ?? 0) + value.length;
    let names = 0;
    for (const name in headers) {
      names += 1;
      most += 2 * VARINT_BYTES + nameBytes(name).length + headers[name]!.length;
    }
    out.ensure(most);
    const {buffer, length: start} = out;
    // How long it is stands before it, in as many bytes as that takes: they are kept free, and closed up where it is fewer.
    const body = start + VARINT_BYTES;
    let at = body;
    buffer[at++] = 0; // attributes
    buffer[at++] = 0; // later than the first one by
    at = writeVarint(buffer, at, this.count);
    at = key ? writeBytes(buffer, at, key) : writeVarint(buffer, at, -1);
    at = writeBytes(buffer, at, value);
    at = writeVarint(buffer, at, names);
    for (const name in headers) {
      at = writeBytes(buffer, at, nameBytes(name));
      at = writeBytes(buffer, at, headers[name]!);
    }
    const length = writeVarint(buffer, start, at - body);
    if (length < body) buffer.copyWithin(length, body, at);
    out.length = at - (body - length);
    this.count += 1;
  }

  /** To be called when its bytes are where they should be. */
  release(): void {
    this.#out.release();
  }

  /** With its head; nothing can be added any more. */
  seal(writer: Writer, nowMs: number): Buffer {
    const plain = this.#out.view();
    const packed = this.#compresses ? smaller(plain.subarray(AT.records)) : undefined;
    const out = packed ? Buffer.concat([plain.subarray(0, AT.records), packed]) : plain;
    out.writeBigInt64BE(0n, 0); // the broker gives the offset
    out.writeInt32BE(out.length - AT.leaderEpoch, AT.length);
    out.writeInt32BE(-1, AT.leaderEpoch);
    out.writeInt8(MAGIC, AT.magic);
    out.writeInt16BE(packed ? ZSTD : 0, AT.attributes);
    out.writeInt32BE(this.count - 1, AT.lastOffsetDelta);
    for (const place of [AT.firstTimestamp, AT.lastTimestamp]) out.writeBigInt64BE(BigInt(nowMs), place);
    out.writeBigInt64BE(writer.producerId, AT.producerId);
    out.writeInt16BE(writer.producerEpoch, AT.producerEpoch);
    out.writeInt32BE(writer.sequence, AT.sequence);
    out.writeInt32BE(this.count, AT.count);
    out.writeUInt32BE(crc32c(out.subarray(AT.attributes)), AT.crc);
    return out;
  }
}

/** Headers have few names. */
const NAMES = new Map<string, Buffer>();
function nameBytes(name: string): Buffer {
  let bytes = NAMES.get(name);
  if (!bytes) {
    bytes = Buffer.from(name);
    NAMES.set(name, bytes);
  }
  return bytes;
}

function writeBytes(out: Buffer, at: number, bytes: Buffer): number {
  const from = writeVarint(out, at, bytes.length);
  out.set(bytes, from);
  return from + bytes.length;
}

/** Signed, small where it is near zero (zigzag), seven bits a byte. */
function writeVarint(out: Buffer, start: number, value: number): number {
  let at = start;
  let rest = ((value << 1) ^ (value >> 31)) >>> 0;
  for (; rest > 0x7f; rest >>>= 7) out[at++] = (rest & 0x7f) | 0x80;
  out[at++] = rest;
  return at;
}
