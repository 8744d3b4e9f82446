import {asPipelineError, PipelineError} from '../failures.ts';
import {HEADER, type InMessage} from '../kafka/message.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Settings} from '../settings/settings.ts';
import type {Reject} from '../source/row-encoder.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {type ClickHouseClient, chName, insertJson, insertRows} from './clickhouse.ts';
import type {DeadLetters, Placed} from './dead-letters.ts';
import {joinObject, rowImage, splitObject} from './row-json.ts';
import {deleteBelow, insertStatement} from './target.ts';
import {type IncompleteRow, resolveUnchanged} from './toast.ts';
import {inPieces} from './toast-pieces.ts';

/** A row that cannot go as its bytes are: values to look up, or values ClickHouse cannot hold. */
export interface SpecialRow extends IncompleteRow {
  readonly technical: string;
}

/** A special row's map of values, and a segment's own things. */
const ROW_BYTES = 1 << 10;

/** Of a segment's rows, bytes. */
const SMALLEST = 1 << 12;

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
  /** partition → offset behind its last message here */
  readonly ends = new Map<number, bigint>();
  oldestCommit = Number.POSITIVE_INFINITY;
  newestCommit = 0;
  /** ClickHouse has its rows, and nothing else has their bytes any more. */
  isSent = false;
  /** Its messages as they came, where they are kept. */
  readonly kept: Placed[] | undefined;
  /** Its one message cannot be read. */
  readonly broken: PipelineError | undefined;

  constructor(
    schemaId: string,
    {
      horizon,
      kept,
      broken,
      expected = SMALLEST,
    }: Partial<Pick<Segment, 'horizon' | 'kept' | 'broken'>> & {
      /** How many bytes its rows will have, where that can be guessed: they need not grow then. */
      readonly expected?: number;
    } = {},
  ) {
    this.schemaId = schemaId;
    this.horizon = horizon;
    this.kept = kept;
    this.broken = broken;
    this.rows = new Bytes(horizon || broken ? 0 : expected);
  }

  /** What it takes in memory, roughly. */
  get held(): number {
    const special = this.specialBytes + (this.special.length + 1) * ROW_BYTES;
    return this.rows.buffer.length + special + this.keptBytes;
  }
}

const CLOSE = 0x7d;
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
      const segment = new Segment('', {broken, kept: [{message, partition}]});
      segment.ends.set(partition, message.offset + 1n);
      this.#segments.push(segment);
    }
    const now = this.#segments.at(-1)!;
    return now === last ? now.held - before : now.held;
  }

  #add(message: InMessage, partition: number): void {
    const {offset, value, headers} = message;
    if (value === null) {
      // A tombstone says nothing new: the deletion came before it.
      this.#segment('', 0).ends.set(partition, offset + 1n);
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
      const segment = new Segment(schemaId, {horizon, ...(this.keep && {kept: [{message, partition}]})});
      segment.ends.set(partition, offset + 1n);
      this.#segments.push(segment);
      return;
    }
    const special = headers[HEADER.unchanged] || headers[HEADER.rejects];
    const image = rowImage(value, facts.isDeleted);
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
    if (segment.kept) {
      segment.kept.push({message, partition});
      segment.keptBytes += this.#weigh ? value.length + KEPT_BYTES : PLACE_BYTES;
    }
    segment.count += 1;
    segment.ends.set(partition, offset + 1n);
    segment.oldestCommit = Math.min(segment.oldestCommit, facts.commitMicros);
    segment.newestCommit = Math.max(segment.newestCommit, facts.commitMicros);
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
      ...(this.keep && {kept: []}),
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
  let commitMicros = 0;
  let at = technical.length - 2;
  for (let unit = 1; at >= 0; at--, unit *= 10) {
    const digit = technical[at]! - 0x30;
    if (digit < 0 || digit > 9) break;
    commitMicros += digit * unit;
  }
  const commit = at + 1 - COMMIT.length;
  const deleted = commit - 1 - IS_DELETED.length;
  if (deleted < 0 || !stands(technical, COMMIT, commit) || !stands(technical, IS_DELETED, deleted))
    return undefined;
  return {isDeleted: technical[commit - 1] === 0x31, commitMicros};
}

/** Do these bytes stand at that place? */
function stands(bytes: Buffer, wanted: Buffer, place: number): boolean {
  for (let i = 0; i < wanted.length; i++) if (bytes[place + i] !== wanted[i]) return false;
  return true;
}

const isDeletion = (technical: string): boolean => technical.includes('"_is_deleted":1');

/** What a message's headers and objects hold in memory, roughly. */
const KEPT_BYTES = 1_000;
/** The same of one whose bytes somebody else holds. */
const PLACE_BYTES = 100;

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
    version: BigInt(/"_version":"(\d+)"/.exec(technical)?.[1] ?? '0'),
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

export interface ApplyContext {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  readonly table: TableSchema;
}

/** Makes a segment visible in ClickHouse. Running it again does no harm: versions decide. */
export async function applySegment(
  context: ApplyContext & {readonly letters: DeadLetters},
  segment: Segment,
): Promise<void> {
  const {client, settings, table, letters} = context;
  if (segment.broken) throw segment.broken;
  if (segment.horizon) {
    await deleteBelow(client, settings, table, segment.horizon);
    // A letter that was retried meanwhile stands below it.
    if (await letters.supersede(table.name, BigInt(segment.horizon.version)))
      await deleteBelow(client, settings, table, segment.horizon);
    return;
  }
  const statement = insertStatement(settings, table);
  failpoint('sink.before_insert');
  if (segment.rows.length > 0) {
    const inserted = insertJson(client, statement, segment.rows.view());
    failpoint('sink.in_insert');
    await inserted;
  }
  if (segment.special.length > 0) await applySpecial(context, statement, segment.special);
}

/**
 * Rows that cannot go as their bytes are, with what is unchanged looked up and what has no place recorded. Values are
 * looked up for a part of the rows at a time: a small message can stand for a large row.
 */
export async function applySpecial(
  context: ApplyContext,
  statement: string,
  special: readonly SpecialRow[],
): Promise<void> {
  const {client, settings, table} = context;
  for (const piece of await inPieces(client, settings, table, special)) {
    await applyPiece(context, statement, piece);
    for (const {members, unchanged} of piece) for (const name of unchanged) members.delete(name);
  }
}

async function applyPiece(
  context: ApplyContext,
  statement: string,
  special: readonly SpecialRow[],
): Promise<void> {
  const {client, settings, table} = context;
  const {gone, rejects} = await resolveUnchanged(client, settings, table, special);
  const rejected: Record<string, unknown>[] = [];
  const out = new Bytes();
  for (const row of special) {
    const members = new Map(row.members);
    let technical = row.technical;
    if (gone.has(row)) {
      for (const name of row.unchanged) members.delete(name);
      technical = technical.replace('"_is_deleted":0', '"_is_deleted":1');
    }
    for (const {column, reason} of [...row.rejects, ...(rejects.get(row) ?? [])]) {
      // A deleted row is no loss; what it held is known under REPLICA IDENTITY FULL alone.
      if (isDeletion(row.technical) && !table.definition.key.includes(column)) {
        members.delete(column);
        continue;
      }
      rejected.push(reject(table, row, column, reason));
      members.set(column, 'null');
    }
    const json = joinObject(members);
    out.bytes(json.subarray(0, json[json.length - 1] === CLOSE ? -1 : undefined));
    out.byte(COMMA);
    out.ascii(technical);
    out.byte(NEWLINE);
  }
  await insertJson(client, statement, out.view());
  // Behind the rows: when those are sent again, the records are not.
  await insertRows(client, chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_rejects'), rejected);
}

/** The declared policy: NULL and a record where the column may be NULL, otherwise the table is parked. */
function reject(
  table: TableSchema,
  row: SpecialRow,
  column: string,
  reason: string,
): Record<string, unknown> {
  const found = table.columns.find(candidate => candidate.name === column);
  if (!found || found.notNull || found.inKey) {
    throw new PipelineError('value.unrepresentable', `${table.name}.${column} of ${row.key}: ${reason}`, {
      table: table.name,
    });
  }
  const value = row.members.get(column) ?? 'null';
  return {
    schema_name: table.definition.schema,
    table_name: table.definition.table,
    key: row.key,
    column_name: column,
    value: value.startsWith('"') ? JSON.parse(value) : value,
    version: row.version.toString(),
    reason,
    at: (BigInt(Date.now()) * 1000n).toString(),
  };
}
