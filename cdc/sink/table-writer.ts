import {PipelineError} from '../failures.ts';
import {HEADER, type InMessage} from '../kafka/message.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Settings} from '../settings/settings.ts';
import type {SnapshotChunk} from '../source/snapshot.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {type ClickHouseClient, chName, insertJson, insertRows} from './clickhouse.ts';
import {joinObject, rowImage, splitObject} from './row-json.ts';
import {deleteBelow, insertStatement} from './target.ts';
import {type IncompleteRow, resolveUnchanged} from './toast.ts';

/** A row that cannot go as its bytes are: values to look up, or values ClickHouse cannot hold. */
interface SpecialRow extends IncompleteRow {
  readonly technical: string;
  readonly rejects: readonly {column: string; reason: string}[];
}

/** Messages that are applied in one step: rows of one table definition, or one horizon. */
export interface Segment {
  readonly schemaId: string;
  readonly rows: Bytes;
  readonly special: SpecialRow[];
  readonly horizon: {version: string; commitMicros: string} | undefined;
  count: number;
  /** What it holds in memory, roughly. */
  bytes: number;
  /** partition → offset behind its last message here */
  readonly ends: Map<number, bigint>;
  oldestCommit: number;
  newestCommit: number;
}

const CLOSE = 0x7d;
const COMMA = 0x2c;
const NEWLINE = 0x0a;

function newSegment(schemaId: string, horizon?: Segment['horizon']): Segment {
  return {
    schemaId,
    horizon,
    rows: new Bytes(1 << 14),
    special: [],
    count: 0,
    bytes: 0,
    ends: new Map(),
    oldestCommit: Number.POSITIVE_INFINITY,
    newestCommit: 0,
  };
}

/** The messages of one table that wait for ClickHouse, cut into segments of at most `maxBytes`. */
export class SegmentQueue {
  readonly #maxBytes: number;
  readonly #segments: Segment[] = [];

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }
  get isEmpty(): boolean {
    return this.#segments.length === 0;
  }
  /** Is the first one complete: full, or followed by another? */
  get hasFull(): boolean {
    return this.#segments.length > 1 || (this.#segments[0]?.bytes ?? 0) >= this.#maxBytes;
  }
  shift(): Segment | undefined {
    return this.#segments.shift();
  }

  /** Gives the bytes by which the queue grew. Throws `kafka.bad_message`. */
  add(message: InMessage, partition: number): number {
    const {offset, value, headers} = message;
    if (value === null) {
      // A tombstone says nothing new: the deletion came before it.
      this.#segment('', 0).ends.set(partition, offset + 1n);
      return 0;
    }
    const technical = headers[HEADER.row]?.toString('latin1');
    const schemaId = headers[HEADER.schema]?.toString('latin1');
    if (technical === undefined || schemaId === undefined) {
      throw new PipelineError(
        'kafka.bad_message',
        `offset ${offset} of partition ${partition} was not written by Freshet`,
      );
    }
    const commitMicros = technical.slice(technical.lastIndexOf(':') + 1, -1);
    const version = headers[HEADER.horizon]?.toString('latin1');
    if (version !== undefined) {
      const segment = newSegment(schemaId, {version, commitMicros});
      segment.ends.set(partition, offset + 1n);
      this.#segments.push(segment);
      return 0;
    }
    const segment = this.#segment(schemaId, value.length);
    const before = segment.bytes;
    if (headers[HEADER.unchanged] || headers[HEADER.rejects]) {
      segment.special.push(specialRow(message, technical));
      segment.bytes += value.length * 2;
    } else {
      const image = rowImage(value, technical.includes('"_is_deleted":1'));
      segment.rows.bytes(image.subarray(0, -1));
      segment.rows.byte(COMMA);
      segment.rows.ascii(technical);
      segment.rows.byte(NEWLINE);
      segment.bytes += image.length + technical.length;
    }
    segment.count += 1;
    segment.ends.set(partition, offset + 1n);
    const commit = Number(commitMicros);
    segment.oldestCommit = Math.min(segment.oldestCommit, commit);
    segment.newestCommit = Math.max(segment.newestCommit, commit);
    return segment.bytes - before;
  }

  /** The segment to add to. Nothing is added behind a horizon, or to rows of another definition. */
  #segment(schemaId: string, more: number): Segment {
    const last = this.#segments.at(-1);
    if (
      last &&
      !last.horizon &&
      (schemaId === '' || last.schemaId === schemaId) &&
      last.bytes + more <= this.#maxBytes
    ) {
      return last;
    }
    const segment = newSegment(schemaId || (last?.schemaId ?? ''));
    this.#segments.push(segment);
    return segment;
  }
}

function specialRow(message: InMessage, technical: string): SpecialRow {
  const {key, value, headers} = message;
  const list = <T>(header: string): T[] => JSON.parse(headers[header]?.toString('utf8') ?? '[]') as T[];
  return {
    key: key?.toString('utf8') ?? '',
    keyText: headers[HEADER.key]?.toString('utf8') ?? '',
    unchanged: list<string>(HEADER.unchanged),
    rejects: list<{column: string; reason: string}>(HEADER.rejects),
    moved: headers[HEADER.moved] !== undefined,
    technical,
    version: BigInt(/"_version":"(\d+)"/.exec(technical)?.[1] ?? '0'),
    members: splitObject(rowImage(value!, false)),
  };
}

export interface ApplyContext {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  readonly table: TableSchema;
}

/** Makes a segment visible in ClickHouse. Running it again does no harm: versions decide. */
export async function applySegment(context: ApplyContext, segment: Segment): Promise<void> {
  const {client, settings, table} = context;
  if (segment.horizon) return deleteBelow(client, settings, table, segment.horizon);
  const statement = insertStatement(settings, table);
  failpoint('sink.before_insert');
  if (segment.rows.length > 0) {
    const inserted = insertJson(client, statement, segment.rows.view());
    failpoint('sink.in_insert');
    await inserted;
  }
  if (segment.special.length > 0) await applySpecial(context, statement, segment.special);
}

async function applySpecial(
  context: ApplyContext,
  statement: string,
  special: readonly SpecialRow[],
): Promise<void> {
  const {client, settings, table} = context;
  const incomplete = special.filter(row => row.unchanged.length > 0);
  const gone =
    incomplete.length > 0 ? await resolveUnchanged(client, settings, table, incomplete) : new Set();
  const rejected: Record<string, unknown>[] = [];
  const out = new Bytes();
  for (const row of special) {
    const members = new Map(row.members);
    let technical = row.technical;
    if (gone.has(row)) {
      for (const name of row.unchanged) members.delete(name);
      technical = technical.replace('"_is_deleted":0', '"_is_deleted":1');
    }
    for (const {column, reason} of row.rejects) {
      rejected.push(reject(table, row, column, reason));
      members.set(column, 'null');
    }
    const json = joinObject(members);
    out.bytes(json.subarray(0, json[json.length - 1] === CLOSE ? -1 : undefined));
    out.byte(COMMA);
    out.ascii(technical);
    out.byte(NEWLINE);
  }
  await insertRows(client, chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_rejects'), rejected);
  await insertJson(client, statement, out.view());
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

/** The rows of a snapshot, by the same way as those of the stream. */
export async function applySnapshotChunk(context: ApplyContext, chunk: SnapshotChunk): Promise<void> {
  const statement = insertStatement(context.settings, context.table);
  if (chunk.rows.length > 0) await insertJson(context.client, statement, chunk.rows.view());
  if (chunk.special.length === 0) return;
  const special = chunk.special.map(({key, json, rejects}) => ({
    key,
    keyText: '',
    unchanged: [],
    moved: false,
    version: chunk.version,
    technical: chunk.technical,
    rejects,
    members: splitObject(json),
  }));
  await applySpecial(context, statement, special);
}
