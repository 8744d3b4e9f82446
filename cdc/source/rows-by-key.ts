import type pg from 'pg';
import {z} from 'zod';
import {pgName, type TableDefinition} from './table-schema.ts';

/** Every value as PostgreSQL's text: the encoders take it from there, as they do for the stream. */
const AS_TEXT = {getTypeParser: () => (text: string) => text} as unknown as pg.CustomTypesConfig;
const Row = z.array(z.string().nullable());
const Today = z.object({
  schema: z.string(),
  table: z.string(),
  number: z.number(),
  name: z.string(),
  typeOid: z.coerce.number(),
});
const ColumnType = z.object({name: z.string(), base: z.string(), searchPath: z.string().nullable()});

/** So that one statement stays small, and below 65,535 parameters. */
const KEYS_A_QUERY = 500;

/** How long somebody's lock is waited for; between attempts a stop is heard. */
const LOCK_TIMEOUT = '5s';
/** SQLSTATE: the table or its schema is not there under this name. */
const NOT_THERE = new Set(['42P01', '3F000']);

/**
 * Begins a transaction that sees the table as it is, and in which nobody can alter it: its lock is taken before the
 * snapshot. Without it the catalog could tell of one table, and its name stand for another.
 */
export async function beginReading(client: pg.ClientBase, oid: number): Promise<void> {
  for (;;) {
    const name = await nameOf(client, oid);
    await client.query(
      `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '${LOCK_TIMEOUT}'`,
    );
    if (name === undefined) return;
    try {
      await client.query(`LOCK TABLE ${name} IN ACCESS SHARE MODE`);
      if ((await nameOf(client, oid)) === name) return;
    } catch (error) {
      if (!NOT_THERE.has(String((error as {code?: string}).code))) throw error;
    }
    await client.query('ROLLBACK'); // it was renamed or dropped meanwhile
  }
}

async function nameOf(client: pg.ClientBase, oid: number): Promise<string | undefined> {
  const {rows} = await client.query<{schema: string; table: string}>(
    'SELECT n.nspname AS schema, c.relname AS table FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1',
    [oid],
  );
  return rows[0] && pgName(rows[0].schema, rows[0].table);
}

/**
 * Reads columns of rows by their keys, with the index of the key. A key is a JSON object of PostgreSQL's texts in key
 * order, as `RowEncoder.keyText` has it. A row is found only by the very text that its key has now. The table may be
 * another one by now than it was for these rows: what has another name is found by its number, a column that is gone,
 * or has another type, gives undefined, and a table or key that is gone gives no rows.
 *
 * @param client a connection with the value settings, in a transaction of `beginReading`.
 */
export async function rowsByKey(
  client: pg.ClientBase,
  definition: TableDefinition,
  columns: readonly string[],
  keys: readonly string[],
): Promise<Map<string, readonly (string | null | undefined)[]>> {
  const {rows} = await client.query(
    `SELECT n.nspname AS schema, c.relname AS table, a.attnum AS number, a.attname AS name, a.atttypid::bigint AS "typeOid"
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE c.oid = $1`,
    [definition.oid],
  );
  const today = z.array(Today).parse(rows);
  const nameNow = (name: string): string | undefined => {
    const column = definition.columns.find(own => own.name === name);
    return today.find(({number, typeOid}) => number === column?.number && typeOid === column.typeOid)?.name;
  };
  const key = definition.key.map(nameNow);
  const [place] = today;
  if (!place || key.some(name => name === undefined)) return new Map();
  const now = columns.map(nameNow);
  const there = now.filter(name => name !== undefined);
  const relabelled = (text: string, from: readonly string[], to: readonly string[]): string => {
    const parts = z.record(z.string(), z.string()).parse(JSON.parse(text));
    return JSON.stringify(Object.fromEntries(from.map((name, i) => [to[i], parts[name]])));
  };
  const keyNow = key as string[];
  const found = await readByKey(
    client,
    {schema: place.schema, table: place.table, key: keyNow},
    there,
    keys.map(text => relabelled(text, definition.key, keyNow)),
  );
  return new Map(
    [...found].map(([text, values]) => [
      relabelled(text, keyNow, definition.key),
      now.map(name => (name === undefined ? undefined : values[there.indexOf(name)])),
    ]),
  );
}

async function readByKey(
  client: pg.ClientBase,
  {schema, table, key}: Pick<TableDefinition, 'schema' | 'table' | 'key'>,
  columns: readonly string[],
  keys: readonly string[],
): Promise<Map<string, readonly (string | null)[]>> {
  const relation = pgName(schema, table);
  const bases = await baseTypes(client, relation);
  const own = key.map(name => `t.${pgName(name)}`);
  const compared = key.map((name, i) => `${own[i]}::${bases.get(name)}`);
  const list = [...own.map(name => `concat(${name})`), ...columns.map(name => `t.${pgName(name)}`)];
  const found = new Map<string, readonly (string | null)[]>();
  for (let at = 0; at < keys.length; at += KEYS_A_QUERY) {
    const slice = keys.slice(at, at + KEYS_A_QUERY);
    const values = slice.flatMap(text => {
      const parts = z.record(z.string(), z.string()).parse(JSON.parse(text));
      return key.map(name => parts[name]);
    });
    const wanted = slice.map(
      (_, row) => `(${key.map((name, i) => `$${row * key.length + i + 1}::${bases.get(name)}`).join(', ')})`,
    );
    const result = await client.query({
      text: `SELECT ${list.join(', ')} FROM ${relation} t WHERE (${compared.join(', ')}) IN (${wanted.join(', ')})`,
      values,
      rowMode: 'array',
      types: AS_TEXT,
    });
    for (const row of z.array(Row).parse(result.rows))
      found.set(
        JSON.stringify(Object.fromEntries(key.map((name, i) => [name, row[i]]))),
        row.slice(key.length),
      );
  }
  return found;
}

/**
 * Column → the type below all its domains, as SQL: PostgreSQL finds no operator for a domain over an enum. An extension's
 * operators are then found where its types are, wherever those were put.
 */
async function baseTypes(client: pg.ClientBase, relation: string): Promise<Map<string, string>> {
  const {rows} = await client.query(
    `WITH RECURSIVE walk AS (
       SELECT a.attname AS name, a.atttypid AS typ FROM pg_attribute a
       WHERE a.attrelid = $1::regclass AND a.attnum > 0 AND NOT a.attisdropped
       UNION ALL
       SELECT w.name, t.typbasetype FROM walk w JOIN pg_type t ON t.oid = w.typ WHERE t.typtype = 'd'
     )
     SELECT w.name, quote_ident(n.nspname) || '.' || quote_ident(t.typname) AS base,
       string_agg(quote_ident(n.nspname), ', ') FILTER (WHERE n.nspname <> 'pg_catalog') OVER () AS "searchPath"
     FROM walk w JOIN pg_type t ON t.oid = w.typ JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typtype <> 'd'`,
    [relation],
  );
  const found = z.array(ColumnType).parse(rows);
  await client.query("SELECT set_config('search_path', $1, true)", [found[0]?.searchPath ?? '']);
  return new Map(found.map(({name, base}) => [name, base]));
}
