import {PipelineError} from '../failures.ts';
import {asDeletion, isDeletion} from '../kafka/message.ts';
import {failpoint} from '../observe/failpoint.ts';
import type {Settings} from '../settings/settings.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {type ClickHouseClient, chName, insertJson, insertRows} from './clickhouse.ts';
import type {DeadLetters} from './dead-letters.ts';
import {joinObject} from './row-json.ts';
import type {Segment, SpecialRow} from './segments.ts';
import {deleteBelow, insertStatement} from './target.ts';
import {resolveUnchanged} from './toast.ts';
import {inPieces} from './toast-pieces.ts';

const CLOSE = 0x7d;
const COMMA = 0x2c;
const NEWLINE = 0x0a;

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
  if (segment.horizon) {
    // First: a letter that is retried meanwhile either finds itself superseded, or has its row in below the horizon.
    await letters.supersede(table.name, BigInt(segment.horizon.version));
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
      technical = asDeletion(technical);
    }
    for (const {column, reason} of [...row.rejects, ...(rejects.get(row) ?? [])]) {
      // A deleted row is no loss; what it held is known under REPLICA IDENTITY FULL alone, and is not written.
      if (isDeletion(row.technical) && !table.definition.key.includes(column)) continue;
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
