import {crc32c} from '@platformatic/kafka';
import type {OutMessage} from './message.ts';

/** What a topic takes: a message without its table. */
export type Sendable = Pick<OutMessage, 'key' | 'value' | 'headers'>;

/** Who writes, and which of its messages in this partition the first one is: so a broker takes none of them twice. */
export interface Writer {
  readonly producerId: bigint;
  readonly producerEpoch: number;
  readonly sequence: number;
}

/** Places in a batch's head (https://kafka.apache.org/documentation/#recordbatch), which is as long as `records` says. */
const AT = {
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
const MAGIC = 2;
const VARINT_BYTES = 5;
/** Length, attributes, the two deltas, the lengths of key and value, and how many headers there are. */
const RECORD_BYTES = 1 + 6 * VARINT_BYTES;

/** Messages of one partition as a record batch of Kafka's format 2, not compressed. */
export function encodeRecordBatch(messages: readonly Sendable[], writer: Writer, nowMs: number): Buffer {
  let most = AT.records;
  for (const {key, value, headers} of messages) {
    most += RECORD_BYTES + (key?.length ?? 0) + value.length;
    for (const name in headers) most += 2 * VARINT_BYTES + name.length + bytesOf(headers[name]!);
  }
  const out = Buffer.allocUnsafe(most);
  let at: number = AT.records;
  for (const [i, message] of messages.entries()) at = writeRecord(out, at, message, i);
  out.writeBigInt64BE(0n, 0); // the broker gives the offset
  out.writeInt32BE(at - AT.leaderEpoch, AT.length);
  out.writeInt32BE(-1, AT.leaderEpoch);
  out.writeInt8(MAGIC, AT.magic);
  out.writeInt16BE(0, AT.attributes);
  out.writeInt32BE(messages.length - 1, AT.lastOffsetDelta);
  for (const place of [AT.firstTimestamp, AT.lastTimestamp]) out.writeBigInt64BE(BigInt(nowMs), place);
  out.writeBigInt64BE(writer.producerId, AT.producerId);
  out.writeInt16BE(writer.producerEpoch, AT.producerEpoch);
  out.writeInt32BE(writer.sequence, AT.sequence);
  out.writeInt32BE(messages.length, AT.count);
  out.writeUInt32BE(crc32c(out.subarray(AT.attributes, at)), AT.crc);
  return out.subarray(0, at);
}

function writeRecord(out: Buffer, start: number, {key, value, headers}: Sendable, offset: number): number {
  // How long it is stands before it, in as many bytes as that takes: they are kept free, and closed up where it is fewer.
  const body = start + VARINT_BYTES;
  let at = body;
  out[at++] = 0; // attributes
  out[at++] = 0; // later than the first one by
  at = writeVarint(out, at, offset);
  at = key ? writeBytes(out, at, key) : writeVarint(out, at, -1);
  at = writeBytes(out, at, value);
  const names = Object.keys(headers);
  at = writeVarint(out, at, names.length);
  for (const name of names) {
    at = writeText(out, at, name);
    const held = headers[name]!;
    at = typeof held === 'string' ? writeText(out, at, held) : writeBytes(out, at, held);
  }
  const length = writeVarint(out, start, at - body);
  if (length < body) out.copyWithin(length, body, at);
  return at - (body - length);
}

const bytesOf = (held: Buffer | string): number =>
  typeof held === 'string' ? Buffer.byteLength(held) : held.length;

function writeBytes(out: Buffer, at: number, bytes: Buffer): number {
  const from = writeVarint(out, at, bytes.length);
  out.set(bytes, from);
  return from + bytes.length;
}

function writeText(out: Buffer, at: number, text: string): number {
  const from = writeVarint(out, at, Buffer.byteLength(text));
  return from + out.write(text, from, 'utf8');
}

/** Signed, small where it is near zero (zigzag), seven bits a byte. */
function writeVarint(out: Buffer, start: number, value: number): number {
  let at = start;
  let rest = ((value << 1) ^ (value >> 31)) >>> 0;
  for (; rest > 0x7f; rest >>>= 7) out[at++] = (rest & 0x7f) | 0x80;
  out[at++] = rest;
  return at;
}
