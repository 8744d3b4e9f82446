import type pg from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {NO_LSN, rowVersion} from '../source/lsn.ts';
import {asSourceError, clientConfig, withClient} from '../source/postgres.ts';
import type {Reject} from '../source/row-encoder.ts';
import {beginReading, rowsByKey} from '../source/rows-by-key.ts';
import {pgLiteral, type TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {type ClickHouseClient, rows} from './clickhouse.ts';
import {deadVersions} from './dead-letters.ts';
import {lookUp, namesOf} from './look-up.ts';
import {Registry} from './registry.ts';

/** A row that came without some of its values, or that stands before such a row in its batch. */
export interface IncompleteRow {
  /** The key as in the topic (JSON) and as PostgreSQL's text (JSON of strings). */
  readonly key: string;
  readonly keyText: string;
  readonly unchanged: readonly string[];
  /** What ClickHouse knows under this key is not the row's past: only PostgreSQL has the values. */
  readonly moved: boolean;
  readonly version: bigint;
  /** The transaction's xid, as pgoutput has it. */
  readonly xid: number;
  /** column → its JSON; the unchanged ones are filled in here. */
  readonly members: Map<string, string>;
  /** Values that ClickHouse cannot hold. */
  readonly rejects: readonly Reject[];
}

/** What the look-ups gave, beside the values that they filled in. */
export interface Resolved {
  /**
   * Rows that are nowhere any more: what made them vanish comes later in the stream, so a deletion may stand for
   * them until then.
   */
  readonly gone: ReadonlySet<IncompleteRow>;
  /** Values that PostgreSQL has and ClickHouse cannot hold. */
  readonly rejects: ReadonlyMap<IncompleteRow, readonly Reject[]>;
}

interface Known {
  readonly version: bigint;
  readonly values: ReadonlyMap<string, string>;
  readonly rejects: readonly Reject[];
}
type Asked = Omit<Known, 'version'>;

/**
 * Fills in values that PostgreSQL did not send again: from an earlier row of the batch, from ClickHouse (which has
 * all that came before in this partition), and last from PostgreSQL, where the key is new.
 *
 * Rows are given in stream order, with those that are complete but not in ClickHouse yet; all others of the batch are
 * there. It may then know a newer image than the one wanted, which is harmless: that image wins anyway. An image from
 * before a change that went to the dead letters is not what the row was.
 */
export async function resolveUnchanged(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  rowsInOrder: readonly IncompleteRow[],
): Promise<Resolved> {
  const incomplete = rowsInOrder.filter(row => row.unchanged.length > 0);
  const gone = new Set<IncompleteRow>();
  const rejects = new Map<IncompleteRow, readonly Reject[]>();
  if (incomplete.length === 0) return {gone, rejects};
  const names = namesOf(table, incomplete);
  const own = incomplete.filter(row => !row.moved);
  const [stored, dead] = await Promise.all([
    fromClickHouse(client, settings, table, names, own),
    deadVersions(client, settings, table.name),
  ]);
  const isPast = (key: string, image: Known | undefined): boolean =>
    image !== undefined && image.version >= (dead.get(key) ?? 0n);
  for (const [key, image] of stored) if (!isPast(key, image)) stored.delete(key);
  const seen = new Set<string>();
  const asked = await fromPostgres(
    client,
    settings,
    table,
    names,
    rowsInOrder.filter(row => {
      const first = !seen.has(row.key);
      seen.add(row.key);
      return (
        row.unchanged.length > 0 && (row.moved || ((first || dead.has(row.key)) && !stored.has(row.key)))
      );
    }),
  );
  const earlier = new Map<string, Known>();
  for (const row of rowsInOrder) {
    const image = row.moved ? undefined : newer(earlier.get(row.key), stored.get(row.key));
    const before = isPast(row.key, image) ? image : undefined;
    const known = before ?? asked.get(row.keyText);
    if (row.unchanged.length > 0 && !known) {
      gone.add(row);
      continue;
    }
    for (const name of row.unchanged) {
      const value = known?.values.get(name);
      if (value === undefined) row.members.delete(name);
      else row.members.set(name, value);
    }
    const found = known?.rejects.filter(({column}) => row.unchanged.includes(column)) ?? [];
    // Recorded where the value is new here; what an earlier row was given is in the records already.
    if (found.length > 0 && !before) rejects.set(row, found);
    const values = new Map(row.members);
    for (const {column} of [...row.rejects, ...found]) values.set(column, 'null');
    earlier.set(row.key, {version: row.version, values, rejects: []});
  }
  return {gone, rejects};
}

const newer = (a: Known | undefined, b: Known | undefined): Known | undefined =>
  a && b ? (a.version > b.version ? a : b) : (a ?? b);

const StoredRow = z.object({
  key: z.string(),
  version: z.string(),
  deleted: z.number(),
  values: z.array(z.string()),
});

/** Looks up the newest image of each key; a deletion is no image. */
async function fromClickHouse(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  names: readonly string[],
  wanted: readonly IncompleteRow[],
): Promise<Map<string, Known>> {
  if (wanted.length === 0) return new Map();
  const {t, from, key, value} = lookUp(settings, table, wanted, 'FINAL');
  const values = names.map(name => {
    const {stored} = table.columns.find(column => column.name === name)!;
    return `ifNull(toJSONString(${stored.input?.back(value(name)) ?? value(name)}), 'null')`;
  });
  const found = await rows(
    client,
    StoredRow,
    `${from(`${key} AS key, toString(${t}._version) AS version, ${t}._is_deleted AS deleted, [${values.join(', ')}] AS values`)}
     SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_quote_decimals = 1,
       output_format_json_quote_denormals = 1`,
  );
  return new Map(
    found
      .filter(row => row.deleted === 0)
      .map(row => [
        row.key,
        {
          version: BigInt(row.version),
          values: new Map(names.map((name, i) => [name, row.values[i]!])),
          rejects: [],
        },
      ]),
  );
}

async function fromPostgres(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  names: readonly string[],
  wanted: readonly IncompleteRow[],
): Promise<Map<string, Asked>> {
  const found = new Map<string, Asked>();
  if (wanted.length === 0) return found;
  // This server knows nothing of another one's rows, which lose against what is read of it. Between those and its own
  // there is a horizon, so no batch has both.
  const source = await new Registry(client, settings).source();
  const first = rowVersion(source?.epoch ?? 0, NO_LSN, 0);
  const own = wanted.filter(({version}) => version >= first);
  if (own.length === 0) return found;
  const keys = [...new Set(own.map(row => row.keyText))];
  const columns = names.map(name => table.columns.find(column => column.name === name)!);
  try {
    await withClient(
      {...clientConfig(settings), application_name: `freshet look-up ${pgLiteral(table.definition.table)}`},
      async postgres => {
        await beginReading(postgres, table.definition.oid);
        await checkVisible(
          postgres,
          own.map(row => row.xid),
        );
        for (const [key, values] of await rowsByKey(postgres, table.definition, names, keys))
          found.set(key, asked(columns, values));
      },
    );
  } catch (error) {
    throw asSourceError(error);
  }
  return found;
}

/**
 * A transaction is streamed once it is in the log, and is seen by others a moment later: under synchronous replication
 * only when the standby has it. Before that PostgreSQL would answer with the past. Throws `pg.unavailable`, to be tried
 * again, where that is so. What a snapshot read has xid 0, and was visible.
 */
async function checkVisible(postgres: pg.Client, xids: readonly number[]): Promise<void> {
  const {rows: hidden} = await postgres.query<{xid: string}>(
    `SELECT (x::text::bigint & 4294967295)::text AS xid FROM pg_snapshot_xip(pg_current_snapshot()) x
     UNION ALL SELECT x::text FROM unnest($1::bigint[]) x, pg_snapshot_xmax(pg_current_snapshot()) m
     WHERE x <> 0 AND (x - m::text::bigint) & 4294967295 < 2147483648`,
    [xids],
  );
  const under = xids.find(xid => hidden.some(row => row.xid === String(xid)));
  if (under !== undefined) {
    throw new PipelineError('pg.unavailable', `transaction ${under} is in the log, but not visible yet`);
  }
}

/** A column that is gone at the source is left out: no view shows it any more when this row's change is followed. */
function asked(columns: TableSchema['columns'], texts: readonly (string | null | undefined)[]): Asked {
  const values = new Map<string, string>();
  const rejects: Reject[] = [];
  for (const [i, {name, stored}] of columns.entries()) {
    const text = texts[i];
    if (text === undefined) continue;
    const bytes = Buffer.from(text ?? '');
    const out = new Bytes(bytes.length + 64);
    const reason = text === null ? undefined : stored.encode(out, bytes, 0, bytes.length);
    values.set(name, text === null ? 'null' : out.view().toString('utf8'));
    if (reason !== undefined) rejects.push({column: name, reason});
  }
  return {values, rejects};
}
