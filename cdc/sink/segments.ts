import {asPipelineError, PipelineError} from '../failures.ts';
import {BatchMessage, type BatchMessages} from '../kafka/batch.ts';
import {copied, HEADER, type InMessage, type Line, versionOf} from '../kafka/message.ts';
import type {Reject} from '../source/row-encoder.ts';
import {Bytes, stands} from '../types/bytes.ts';
import type {Placed} from './dead-letters.ts';
import {rowImage, splitObject} from './row-json.ts';
import type {IncompleteRow} from './toast.ts';

/** A row that cannot go as its bytes are: values to look up, or values ClickHouse cannot hold. */
export interface SpecialRow extends IncompleteRow {
  readonly technical: string;
}

/** A special row's map of values, and a segment's own things. */
const ROW_BYTES = 1 << 10;

/** Of a segment's rows, bytes. */
const SMALLEST = 1 << 12;

/** Messages as they came. Those of a batch are made again when they are asked for: by the million they take their time. */
class Kept implements Iterable<Placed> {
  readonly #runs: (Placed | {all: BatchMessages; from: number; to: number; partition: number})[] = [];

  push(message: InMessage, partition: number): void {
    if (!(message instanceof BatchMessage)) {
      this.#runs.push({message: copied(message), partition});
      return;
    }
    const {all, n} = message;
    const last = this.#runs.at(-1);
    if (last && 'all' in last && last.all === all && last.to === n) last.to = n + 1;
    else this.#runs.push({all, from: n, to: n + 1, partition});
  }

  *[Symbol.iterator](): Generator<Placed> {
    for (const run of this.#runs) {
      if ('message' in run) yield run;
      else for (let n = run.from; n < run.to; n++) yield {message: run.all.at(n), partition: run.partition};
    }
  }
}

/** Messages that are applied in one step: rows of one table definition, or one horizon. */
export class Segment {
  readonly schemaId: string;
  readonly horizon: {version: string; commitMicros: string} | undefined;
  readonly rows: Bytes;
  readonly special: SpecialRow[] = [];
  specialBytes = 0;
  /** Of kept messages that nobody else holds. */
  keptBytes = 0;
  count = 0;
  /** Of its rows. */
  bytes = 0;
  readonly #ends = new Map<number, bigint>();
  /** The last message, until one of another partition comes. */
  #lastOffset = -1n;
  #lastPartition = -1;
  oldestCommit = Number.POSITIVE_INFINITY;
  newestCommit = 0;
  /** ClickHouse has its rows, and nothing else has their bytes any more. */
  isSent = false;
  /** Its messages as they came, where they are kept. */
  readonly kept: Kept | undefined;
  /** Its one message cannot be read. */
  readonly broken: PipelineError | undefined;

  constructor(
    schemaId: string,
    {
      horizon,
      keep,
      broken,
      expected = SMALLEST,
    }: Partial<Pick<Segment, 'horizon' | 'broken'>> & {
      readonly keep: boolean;
      /** How many bytes its rows will have, where that can be guessed: they need not grow then. */
      readonly expected?: number;
    },
  ) {
    this.schemaId = schemaId;
    this.horizon = horizon;
    this.kept = keep ? new Kept() : undefined;
    this.broken = broken;
    this.rows = new Bytes(horizon || broken ? 0 : expected);
  }

  /** partition → offset behind its last message here */
  get ends(): ReadonlyMap<number, bigint> {
    this.#settle();
    return this.#ends;
  }

  reached(message: InMessage, partition: number): void {
    if (partition !== this.#lastPartition) this.#settle();
    this.#lastPartition = partition;
    this.#lastOffset = message.offset;
  }

  #settle(): void {
    if (this.#lastPartition >= 0) this.#ends.set(this.#lastPartition, this.#lastOffset + 1n);
  }

  /** @param bytes what it takes in memory, where it is kept. */
  keep(message: InMessage, partition: number, bytes: number): void {
    if (!this.kept) return;
    this.kept.push(message, partition);
    this.keptBytes += bytes;
  }

  /** What it takes in memory, roughly. */
  get held(): number {
    const special = this.specialBytes + (this.special.length + 1) * ROW_BYTES;
    return this.rows.buffer.length + special + this.keptBytes;
  }
}

const COMMA = 0x2c;
const NEWLINE = 0x0a;

/** The messages of one table that wait for ClickHouse, cut into segments of at most `maxBytes`. */
export class SegmentQueue {
  readonly #maxBytes: number;
  readonly #segments: Segment[] = [];
  readonly #weigh: boolean;
  #expected = SMALLEST;
  /** Are messages kept, and those that cannot be read queued as well, so that they can be told apart? */
  keep: boolean;

  /** @param weigh do kept messages count as bytes, or does somebody else hold them anyway? */
  constructor(maxBytes: number, weigh = true, keep = false) {
    this.#maxBytes = maxBytes;
    this.#weigh = weigh;
    this.keep = keep;
  }
  get isEmpty(): boolean {
    return this.#segments.length === 0;
  }
  /** Is the first one complete: full, or followed by another? */
  get hasFull(): boolean {
    return this.#segments.length > 1 || (this.#segments[0]?.bytes ?? 0) >= this.#maxBytes;
  }
  /** When its first rows were committed, µs since 1970; infinite where it has none. */
  get oldestCommit(): number {
    return this.#segments[0]?.oldestCommit ?? Number.POSITIVE_INFINITY;
  }
  shift(): Segment | undefined {
    const segment = this.#segments.shift();
    if (segment) this.#expected = Math.max(SMALLEST, segment.rows.length); // under load the next one is as large
    return segment;
  }

  /** Gives the bytes by which the queue grew in memory. Throws `kafka.bad_message` where messages are not kept. */
  add(message: InMessage, partition: number): number {
    const last = this.#segments.at(-1);
    const before = last?.held ?? 0;
    try {
      this.#add(message, partition);
    } catch (thrown) {
      const broken = asPipelineError(thrown);
      if (!this.keep || broken.reaction !== 'park') throw thrown;
      const segment = new Segment('', {broken, keep: true});
      segment.keep(message, partition, 0);
      segment.reached(message, partition);
      this.#segments.push(segment);
    }
    const now = this.#segments.at(-1)!;
    return now === last ? now.held - before : now.held;
  }

  #add(message: InMessage, partition: number): void {
    const {line} = message;
    if (line) {
      this.#addLine(message, line, partition);
      return;
    }
    const {offset, key, value, headers} = message;
    if (value === null) {
      // A tombstone says nothing new: the deletion came before it.
      this.#segment('', 0).reached(message, partition);
      return;
    }
    const technical = headers[HEADER.row];
    const schemaId = headers[HEADER.schema]?.toString('latin1');
    const facts = technical && readTechnical(technical);
    if (!technical || !facts || schemaId === undefined) {
      throw new PipelineError(
        'kafka.bad_message',
        `offset ${offset} of partition ${partition} was not written by Freshet`,
      );
    }
    const version = headers[HEADER.horizon]?.toString('latin1');
    if (version !== undefined) {
      const horizon = {version, commitMicros: String(facts.commitMicros)};
      const segment = new Segment(schemaId, {horizon, keep: this.keep});
      segment.keep(message, partition, 0);
      segment.reached(message, partition);
      this.#segments.push(segment);
      return;
    }
    const special = headers[HEADER.unchanged] || headers[HEADER.rejects];
    // Of a deletion the key is all that is kept, also where PostgreSQL sent the whole row.
    const image = facts.isDeleted ? key : rowImage(value);
    if (!image) throw new PipelineError('kafka.bad_message', `a deletion without a key at offset ${offset}`);
    const segment = this.#segment(schemaId, value.length);
    if (special) {
      segment.special.push(specialRow(message, technical.toString('latin1'), image));
      segment.bytes += value.length * 2;
      segment.specialBytes += value.length * 2;
    } else {
      segment.rows.bytes(image.subarray(0, -1));
      segment.rows.byte(COMMA);
      segment.rows.bytes(technical);
      segment.rows.byte(NEWLINE);
      segment.bytes = segment.bytes + image.length + technical.length + 1;
    }
    this.#added(segment, message, partition, value.length, facts.commitMicros);
  }

  #addLine(message: InMessage, {bytes, schemaId}: Line, partition: number): void {
    const segment = this.#segment(schemaId, bytes.length);
    segment.rows.bytes(bytes);
    segment.bytes += bytes.length;
    this.#added(segment, message, partition, bytes.length, commitOf(bytes, bytes.length - 2).commitMicros);
  }

  #added(segment: Segment, message: InMessage, partition: number, bytes: number, commitMicros: number): void {
    segment.keep(message, partition, this.#weigh ? bytes + KEPT_BYTES : PLACE_BYTES);
    segment.reached(message, partition);
    segment.count += 1;
    segment.oldestCommit = Math.min(segment.oldestCommit, commitMicros);
    segment.newestCommit = Math.max(segment.newestCommit, commitMicros);
  }

  /** The segment to add to. Nothing is added behind a horizon, or to rows of another definition. */
  #segment(schemaId: string, more: number): Segment {
    const last = this.#segments.at(-1);
    if (
      last &&
      !last.horizon &&
      !last.broken &&
      (last.kept !== undefined) === this.keep &&
      (schemaId === '' || last.schemaId === schemaId) &&
      last.bytes + more <= this.#maxBytes
    ) {
      return last;
    }
    const segment = new Segment(schemaId || (last?.schemaId ?? ''), {
      keep: this.keep,
      expected: this.#expected,
    });
    this.#segments.push(segment);
    return segment;
  }
}

const IS_DELETED = Buffer.from('"_is_deleted":');
const COMMIT = Buffer.from(',"_commit_ts":');

/** From the end of `…"_is_deleted":0,"_commit_ts":…}`; undefined where that is not there. */
function readTechnical(technical: Buffer): {isDeleted: boolean; commitMicros: number} | undefined {
  const {commitMicros, at} = commitOf(technical, technical.length - 1);
  const commit = at - COMMIT.length;
  const deleted = commit - 1 - IS_DELETED.length;
  if (deleted < 0 || !stands(technical, COMMIT, commit) || !stands(technical, IS_DELETED, deleted))
    return undefined;
  return {isDeleted: technical[commit - 1] === 0x31, commitMicros};
}

/** The number before the bracket at `end`, and where it begins. */
function commitOf(bytes: Buffer, end: number): {commitMicros: number; at: number} {
  let commitMicros = 0;
  let at = end - 1;
  for (let unit = 1; at >= 0; at--, unit *= 10) {
    const digit = bytes[at]! - 0x30;
    if (digit < 0 || digit > 9) break;
    commitMicros += digit * unit;
  }
  return {commitMicros, at: at + 1};
}

/** What a message's headers and objects hold in memory, roughly. */
const KEPT_BYTES = 1_000;
/** The same of one whose bytes somebody else holds. */
const PLACE_BYTES = 16;

function specialRow(message: InMessage, technical: string, image: Buffer): SpecialRow {
  const {key, value, headers} = message;
  const list = <T>(header: string): T[] => JSON.parse(headers[header]?.toString('utf8') ?? '[]') as T[];
  return {
    key: key?.toString('utf8') ?? '',
    keyText: headers[HEADER.key]?.toString('utf8') ?? '',
    unchanged: list<string>(HEADER.unchanged),
    rejects: list<Reject>(HEADER.rejects),
    moved: headers[HEADER.moved] !== undefined,
    technical,
    version: BigInt(versionOf(technical)),
    xid: xidOf(value!),
    members: splitObject(image),
  };
}

const TX_ID = '"txId":';
/** From the envelope's source, which stands behind the rows. */
function xidOf(value: Buffer): number {
  const at = value.lastIndexOf(TX_ID) + TX_ID.length;
  return Number.parseInt(value.toString('latin1', at, at + 10), 10);
}
