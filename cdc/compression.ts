import zlib from 'node:zlib';

/** In a batch's attributes (https://kafka.apache.org/documentation/#recordbatch). */
export const ZSTD = 4;
/** The fastest level: envelopes repeat themselves so much that higher ones save little. */
const LEVEL = 1;
/** A compressor has to be made for each batch, which takes as long as this many bytes save. */
const LEAST = 1 << 10;
/** The largest message is smaller: what claims to be more is damaged. */
const MOST = 128 << 20;

/** As one zstd frame. */
export const compressed = (records: Buffer): Buffer =>
  zlib.zstdCompressSync(records, {
    params: {[zlib.constants.ZSTD_c_compressionLevel]: LEVEL},
    pledgedSrcSize: records.length,
  } as zlib.ZstdOptions);

/** The same, where it is smaller than the records themselves. */
export function smaller(records: Buffer): Buffer | undefined {
  if (records.length < LEAST) return undefined;
  const packed = compressed(records);
  return packed.length < records.length ? packed : undefined;
}

/** Throws where the bytes are no whole zstd frames, or hold more than any message may. */
export function decompressed(frames: Buffer): Buffer {
  // In one piece where it is known how many bytes that is: pieces are copied together.
  const chunkSize = Math.min(Math.max(contentSize(frames) ?? frames.length * 4, 64), MOST);
  return zlib.zstdDecompressSync(frames, {chunkSize, maxOutputLength: MOST});
}

/** A buffer of its own as small as this may be a part of one that others use. */
const SHARED = 1 << 16;

/** Gives its memory back at once: what lies around until it is collected makes the collector work half of the time. */
export function free({buffer}: Buffer<ArrayBufferLike>): void {
  if (buffer instanceof ArrayBuffer && buffer.byteLength > SHARED) buffer.transfer(0);
}

/** What the first frame says of its content (RFC 8878, 3.1.1.1). */
function contentSize(frame: Buffer): number | undefined {
  const descriptor = frame[4] ?? 0;
  const isOneSegment = (descriptor & 0x20) !== 0;
  const at = 5 + (isOneSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!;
  if (at + 8 > frame.length) return undefined;
  switch (descriptor >> 6) {
    case 0:
      return isOneSegment ? frame[at] : undefined;
    case 1:
      return frame.readUInt16LE(at) + 256;
    case 2:
      return frame.readUInt32LE(at);
    default:
      return Number(frame.readBigUInt64LE(at));
  }
}
