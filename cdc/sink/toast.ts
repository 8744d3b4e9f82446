import type pg from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {asSourceError, clientConfig, withClient} from '../source/postgres.ts';
import {pgLiteral, pgName, type TableSchema} from '../source/table-schema.ts';
import {Bytes} from '../types/bytes.ts';
import {type ClickHouseClient, chLiteral, chName, rows} from './clickhouse.ts';
import {targetTable} from './target.ts';

/** A row that came without some of its values. */
export interface IncompleteRow {
  /** The key as in the topic (JSON) and as PostgreSQL's text (JSON of strings). */
  readonly key: string;
  readonly keyText: string;
  readonly unchanged: readonly string[];
  readonly moved: boolean;
  readonly version: bigint;
  /** column → its JSON; the unchanged ones are filled in here. */
  readonly members: Map<string, string>;
}

interface Known {
  readonly version: bigint;
  readonly values: ReadonlyMap<string, string>;
}

/** Asks PostgreSQL in slices, so that one statement stays small. */
const KEYS_A_QUERY = 500;

/**
 * Fills in values that PostgreSQL did not send again: from an earlier row of the batch, from ClickHouse (which has
 * all that came before in this partition), and last from PostgreSQL, where the key is new. Gives the rows that are
 * nowhere any more: what made them vanish comes later in the stream, so a deletion may stand for them until then.
 *
 * Rows are given in stream order; those of the batch that were complete are already in ClickHouse. It may then know
 * a newer image than the one wanted, which is harmless: that image wins anyway.
 */
export async function resolveUnchanged(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  incomplete: readonly IncompleteRow[],
): Promise<Set<IncompleteRow>> {
  const columns = table.columns.filter(column => incomplete.some(row => row.unchanged.includes(column.name)));
  const names = columns.map(column => column.name);
  const stored = await fromClickHouse(
    client,
    settings,
    table,
    names,
    incomplete.filter(row => !row.moved),
  );
  const seen = new Set<string>();
  const asked = await fromPostgres(
    settings,
    table,
    names,
    incomplete.filter(row => {
      const first = !seen.has(row.key);
      seen.add(row.key);
      return row.moved || (first && !stored.has(row.key));
    }),
  );
  const earlier = new Map<string, Known>();
  const gone = new Set<IncompleteRow>();
  for (const row of incomplete) {
    const before = row.moved ? undefined : newer(earlier.get(row.key), stored.get(row.key));
    const values = before?.values ?? asked.get(row.keyText);
    if (!values) gone.add(row);
    else {
      for (const name of row.unchanged) row.members.set(name, values.get(name) ?? missing(table, name));
      earlier.set(row.key, {version: row.version, values: row.members});
    }
  }
  return gone;
}

const newer = (a: Known | undefined, b: Known | undefined): Known | undefined =>
  a && b ? (a.version > b.version ? a : b) : (a ?? b);

function missing(table: TableSchema, column: string): never {
  throw new PipelineError('internal', `${table.name}.${column} was not looked up`, {table: table.name});
}

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
  const keyColumns = table.keyColumns.map(index => table.columns[index]!);
  const keys = [...new Set(wanted.map(row => row.key))];
  const structure = [
    '_key String',
    ...keyColumns.map(({name, stored}) => `${chName(name)} ${stored.input?.type ?? stored.column}`),
  ];
  const data = keys.map(key => `{"_key":${JSON.stringify(key)},${key.slice(1)}`).join('\n');
  const read = keyColumns.map(
    ({name, stored}) => stored.input?.expr(`k.${chName(name)}`) ?? `k.${chName(name)}`,
  );
  const target = targetTable(settings, table);
  const own = keyColumns.map(({name}) => `t.${chName(name)}`);
  const values = names.map(name => {
    const {stored} = table.columns.find(column => column.name === name)!;
    const value = `t.${chName(name)}`;
    return `ifNull(toJSONString(${stored.input?.back(value) ?? value}), 'null')`;
  });
  const literal = chLiteral(data);
  const found = await rows(
    client,
    StoredRow,
    `WITH k AS (SELECT * FROM format(JSONEachRow, ${chLiteral(structure.join(', '))}, ${literal}))
     SELECT k._key AS key, toString(t._version) AS version, t._is_deleted AS deleted, [${values.join(', ')}] AS values
     FROM (SELECT * FROM ${target} FINAL WHERE (${keyColumns.map(({name}) => chName(name)).join(', ')}) IN (SELECT ${read.join(', ')} FROM k)) AS t
     INNER JOIN k ON ${own.map((column, i) => `${column} = ${read[i]}`).join(' AND ')}
     SETTINGS output_format_json_quote_64bit_integers = 0, output_format_json_quote_decimals = 1,
       output_format_json_quote_denormals = 1`,
  );
  return new Map(
    found
      .filter(row => row.deleted === 0)
      .map(row => [
        row.key,
        {version: BigInt(row.version), values: new Map(names.map((name, i) => [name, row.values[i]!]))},
      ]),
  );
}

/** Every value as PostgreSQL's text: the encoders take it from there, as they do for the stream. */
const AS_TEXT = {getTypeParser: () => (text: string) => text} as unknown as pg.CustomTypesConfig;
const AskedRow = z.array(z.string().nullable());

async function fromPostgres(
  settings: Settings,
  table: TableSchema,
  names: readonly string[],
  wanted: readonly IncompleteRow[],
): Promise<Map<string, ReadonlyMap<string, string>>> {
  const found = new Map<string, ReadonlyMap<string, string>>();
  if (wanted.length === 0) return found;
  const keys = [...new Set(wanted.map(row => row.keyText))];
  const columns = names.map(name => table.columns.find(column => column.name === name)!);
  const {schema, table: name, key} = table.definition;
  const relation = pgName(schema, name);
  const text = `SELECT k.n, ${names.map(column => `t.${pgName(column)}`).join(', ')}
    FROM json_array_elements($1::json) WITH ORDINALITY AS k(key, n)
    CROSS JOIN LATERAL json_populate_record(NULL::${relation}, k.key) AS p
    JOIN ${relation} t ON ${key.map(column => `t.${pgName(column)} = p.${pgName(column)}`).join(' AND ')}`;
  try {
    await withClient(
      {...clientConfig(settings), application_name: `freshet look-up ${pgLiteral(name)}`},
      async postgres => {
        for (let at = 0; at < keys.length; at += KEYS_A_QUERY) {
          const slice = keys.slice(at, at + KEYS_A_QUERY);
          const result = await postgres.query({
            text,
            values: [`[${slice.join(',')}]`],
            rowMode: 'array',
            types: AS_TEXT,
          });
          for (const row of result.rows) {
            const [n, ...values] = AskedRow.parse(row);
            found.set(
              slice[Number(n) - 1]!,
              new Map(columns.map((column, i) => [column.name, encoded(column, values[i] ?? null)])),
            );
          }
        }
      },
    );
  } catch (error) {
    throw asSourceError(error);
  }
  return found;
}

function encoded(column: TableSchema['columns'][number], text: string | null): string {
  if (text === null) return 'null';
  const out = new Bytes(text.length + 64);
  const bytes = Buffer.from(text);
  column.stored.encode(out, bytes, 0, bytes.length);
  return out.view().toString('utf8');
}
