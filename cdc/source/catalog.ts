import type {ClientBase} from 'pg';
import picomatch from 'picomatch';
import {z} from 'zod';
import type {Settings} from '../settings/settings.ts';
import type {Lsn} from './lsn.ts';
import {asSourceError, currentPosition, HAS_COLUMN_LISTS} from './postgres.ts';
import {pgLiteral, pgName, tableName} from './table-schema.ts';

/** A type, walked down to what is stored: domains resolved, arrays to their elements. */
const CatalogType = z.object({
  name: z.string(),
  kind: z.string(),
  modifier: z.number(),
  array: z.boolean(),
  delimiter: z.string(),
});

const CatalogColumn = z.object({
  name: z.string(),
  /** `pg_attribute.attnum`: what stays the same when a column is renamed, and is never given to another. */
  number: z.number(),
  typeOid: z.number(),
  notNull: z.boolean(),
  /** '' plain, 's' stored, 'v' virtual (`pg_attribute.attgenerated`). */
  generated: z.string(),
  /**
   * What rows show that were there before the column was added (`attmissingval`), as PostgreSQL's text; null where
   * rows hold its value themselves, or hold NULL. `unclear`: it is not the same in all partitions.
   */
  missing: z.object({value: z.string().nullable(), unclear: z.boolean()}).nullable(),
  type: CatalogType,
  /** Of a composite or range: the base types that it is made of. */
  within: z.array(z.string()).nullable().default(null),
});

const Leaf = z.object({
  oid: z.number(),
  fileNode: z.number(),
  /** Is it known to have no rows? */
  empty: z.boolean(),
  // What is remembered from earlier releases has no more than that.
  schema: z.string().default(''),
  table: z.string().default(''),
  /** Are its changes in the WAL? */
  logged: z.boolean().default(true),
  /** The columns by which the WAL names its old rows, whatever the root's identity is; null for all. */
  identity: z.array(z.string()).nullable().default(null),
});

/** A table as the catalog describes it at one place of its history; not every one of them can be captured. */
export const CatalogTable = z.object({
  oid: z.number(),
  schema: z.string(),
  table: z.string(),
  kind: z.string(),
  identity: z.enum(['d', 'n', 'f', 'i']),
  /** Are rows hidden from the role? */
  rowSecurity: z.boolean(),
  mayRead: z.boolean(),
  /** May the role put it into a publication? */
  owned: z.boolean(),
  estimatedRows: z.number(),
  primaryKey: z.array(z.string()).nullable(),
  primaryKeyName: z.string().nullable(),
  primaryKeyDeferrable: z.boolean(),
  identityIndex: z.array(z.string()).nullable(),
  /** `pg_class.relfilenode`: another one after every rewrite, and after TRUNCATE. */
  fileNode: z.number(),
  /** The partitions that hold rows, by OID. */
  leaves: z.array(Leaf),
  /** Of the types that its columns reach: enum labels by the OID of their row, attributes of composites by type. */
  labels: z.record(z.string(), z.string()),
  attributes: z.record(z.string(), z.string()),
  /** Its place in the publication; `id` is another one after it was taken out and put back. */
  published: z
    .object({id: z.string(), columns: z.array(z.string()).nullable(), rowFilter: z.string().nullable()})
    .nullable(),
  columns: z.array(CatalogColumn),
});
export type CatalogTable = z.infer<typeof CatalogTable>;

/** A true array type: int2vector and oidvector have elements too, but another text. */
const IS_ARRAY = 'EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)';

/**
 * The partitions that hold rows, of c. Not by pg_partition_tree, which waits for the lock of each: whoever only looks
 * would stand behind VACUUM FULL, or behind somebody who stands behind a lock of ours.
 */
const LEAVES = `
  WITH RECURSIVE tree AS (
    SELECT inhrelid AS relid FROM pg_inherits WHERE inhparent = c.oid AND c.relkind = 'p' AND NOT inhdetachpending
    UNION ALL SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.relid AND NOT i.inhdetachpending
  )
  SELECT l.* FROM tree JOIN pg_class l ON l.oid = tree.relid WHERE l.relkind <> 'p'`;

/** Has l no rows? Looking waits for its lock, so it is told of those alone that this session has one of. */
const IS_EMPTY = `CASE WHEN l.oid IN (SELECT relation FROM pg_locks WHERE pid = pg_backend_pid() AND granted)
    THEN coalesce(pg_relation_size(l.oid), 0) = 0 ELSE false END`;

/** attmissingval is an array of one value; box[] alone has another delimiter, and its value is left unclear. */
const MISSING = `
  CASE WHEN c.relkind = 'r' AND a.atthasmissing THEN json_build_object(
      'value', CASE WHEN ty.typdelim = ',' THEN (a.attmissingval::text::text[])[1] END, 'unclear', ty.typdelim <> ',')
    -- A root has no rows and no such value: its partitions have.
    WHEN c.relkind = 'p' THEN (
      SELECT CASE WHEN bool_or(l.atthasmissing) THEN json_build_object(
        'value', min(CASE WHEN ty.typdelim = ',' THEN (l.attmissingval::text::text[])[1] END),
        'unclear', ty.typdelim <> ',' OR NOT bool_and(l.atthasmissing) OR count(DISTINCT l.attmissingval::text) > 1) END
      FROM (${LEAVES}) p JOIN pg_attribute l ON l.attrelid = p.oid
      WHERE l.attname = a.attname AND NOT l.attisdropped)
  END`;

/** Every type within those that `start` selects: what a domain, array, range or composite is made of. */
const reached = (start: string): string => `
  WITH RECURSIVE reached(typ) AS (
    ${start}
    UNION
    SELECT n.typ FROM reached r JOIN pg_type t ON t.oid = r.typ CROSS JOIN LATERAL (
      SELECT t.typbasetype UNION ALL SELECT t.typelem
      UNION ALL SELECT g.rngsubtype FROM pg_range g WHERE t.oid IN (g.rngtypid, g.rngmultitypid)
      UNION ALL SELECT a.atttypid FROM pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS n(typ) WHERE n.typ <> 0
  )`;

const REACHED = reached(
  'SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped',
);

/**
 * Walks a column's type down to what is stored: domain → base → array → element → domain → base. A domain's own
 * modifier counts where it has one.
 */
const COLUMNS = `
  WITH RECURSIVE walk AS (
    SELECT a.attrelid, a.attnum, a.atttypid AS typ, a.atttypmod AS modifier, false AS array, ',' AS delimiter
    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT w.attrelid, w.attnum,
      CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END,
      CASE WHEN t.typtype = 'd' AND t.typtypmod >= 0 THEN t.typtypmod ELSE w.modifier END,
      w.array OR t.typtype <> 'd',
      CASE WHEN t.typtype = 'd' THEN w.delimiter ELSE t.typdelim::text END
    FROM walk w JOIN pg_type t ON t.oid = w.typ
    WHERE t.typtype = 'd' OR (${IS_ARRAY} AND NOT w.array)
  )
  SELECT coalesce(json_agg(json_build_object(
    'name', a.attname, 'number', a.attnum, 'typeOid', a.atttypid::bigint, 'generated', a.attgenerated,
    -- A domain's NOT NULL does not hold for every row (outer joins), so only the column's own counts.
    'notNull', a.attnotnull,
    'missing', ${MISSING},
    'type', json_build_object('name', t.typname, 'kind', t.typtype, 'modifier', w.modifier, 'array', w.array,
      'delimiter', w.delimiter),
    'within', CASE WHEN t.typtype IN ('c', 'r', 'm') THEN (${reached('SELECT w.typ')}
      SELECT json_agg(b.typname ORDER BY b.typname) FROM pg_type b
      WHERE b.oid IN (SELECT typ FROM reached) AND b.typtype = 'b') END) ORDER BY a.attnum), '[]')
  FROM walk w
  JOIN pg_attribute a ON a.attrelid = w.attrelid AND a.attnum = w.attnum
  JOIN pg_type ty ON ty.oid = a.atttypid
  JOIN pg_type t ON t.oid = w.typ
  WHERE t.typtype <> 'd' AND NOT (${IS_ARRAY} AND NOT w.array)`;

const INDEX_COLUMNS = (condition: string, of = 'c'): string => `
  (SELECT json_agg(a.attname ORDER BY k.n)
   FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
   WHERE i.indrelid = ${of}.oid AND k.n <= i.indnkeyatts AND ${condition})`;

/**
 * A table's place in the publication, as JSON; NULL where it has none. It says what pg_publication_tables says, which
 * (PostgreSQL 16 to 18) waits for the lock of each table of the publication: for as long as any of them is altered.
 */
export const publishedSql = (publication: string, serverVersion: number): string => {
  const lists = serverVersion >= HAS_COLUMN_LISTS;
  const wholeSchema = lists
    ? '(SELECT s.oid::text FROM pg_publication_namespace s WHERE s.pnpubid = b.oid AND s.pnnspid = n.oid)'
    : 'NULL::text';
  // What later versions have is read by name. FOR ALL TABLES EXCEPT lists what it leaves out.
  return `(SELECT json_build_object(
      'id', coalesce(r.oid::text, w.namespace, 'all') || '/' || b.oid || CASE WHEN b.pubviaroot THEN '/root' ELSE '' END,
      'columns', (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND CASE
          WHEN w.own_list THEN ${lists ? 'a.attnum = ANY(r.prattrs)' : 'false'}
          ELSE a.attgenerated = '' OR a.attgenerated = 's' AND to_jsonb(b) ->> 'pubgencols' = 's' END),
      'rowFilter', ${lists ? 'CASE WHEN w.own THEN pg_get_expr(r.prqual, r.prrelid) END' : 'NULL'})
    FROM pg_publication b LEFT JOIN pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid
    CROSS JOIN LATERAL (SELECT ${wholeSchema} AS namespace) s
    CROSS JOIN LATERAL (SELECT s.namespace, NOT b.puballtables AND s.namespace IS NULL AS own,
      NOT b.puballtables AND s.namespace IS NULL AND ${lists ? 'r.prattrs IS NOT NULL' : 'false'} AS own_list) w
    WHERE b.pubname = ${pgLiteral(publication)} AND (c.relkind <> 'p' OR b.pubviaroot)
      AND NOT coalesce((to_jsonb(r) ->> 'prexcept')::bool, false) AND (r.oid IS NOT NULL OR NOT w.own))`;
};

/** Tables that can be captured, over c (pg_class) and n (pg_namespace); partitions come through their root. */
export const CAPTURABLE = `c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'`;

/**
 * The query that describes tables, a JSON object each; `condition` is over c (pg_class). It runs within the source's
 * event trigger too, and sees what the transaction has done so far. What may be read and is owned is said of `role`; of
 * the current one where none is given. It waits for no table's lock, but for those with a row filter, where
 * pg_get_expr does.
 */
export const describeSql = (
  condition: string,
  {publication, serverVersion, role}: {publication: string; serverVersion: number; role?: string},
): string => {
  const user = role === undefined ? 'current_user' : `${pgLiteral(role)}::name`;
  return `
  SELECT json_build_object('oid', c.oid::bigint, 'schema', n.nspname, 'table', c.relname, 'kind', c.relkind,
    'identity', c.relreplident,
    'rowSecurity', c.relrowsecurity AND (c.relforcerowsecurity OR NOT pg_has_role(${user}, c.relowner, 'USAGE'))
      AND NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = ${user}),
    'owned', pg_has_role(${user}, c.relowner, 'USAGE'),
    'mayRead', has_table_privilege(${user}, c.oid, 'SELECT') AND has_schema_privilege(${user}, n.oid, 'USAGE'),
    'estimatedRows', greatest(c.reltuples, 0)::float8,
    'primaryKey', ${INDEX_COLUMNS('i.indisprimary')},
    'primaryKeyName', (SELECT conname FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p'),
    'primaryKeyDeferrable',
      EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate),
    'identityIndex', ${INDEX_COLUMNS('i.indisreplident')},
    'fileNode', c.relfilenode::bigint,
    'leaves', (SELECT coalesce(json_agg(json_build_object('oid', l.oid::bigint, 'fileNode', l.relfilenode::bigint,
        'empty', ${IS_EMPTY}, 'schema', s.nspname, 'table', l.relname,
        'logged', l.relpersistence = 'p', 'identity', CASE WHEN l.relreplident <> 'f' THEN coalesce(
          CASE l.relreplident WHEN 'd' THEN ${INDEX_COLUMNS('i.indisprimary', 'l')}
            WHEN 'i' THEN ${INDEX_COLUMNS('i.indisreplident', 'l')} END, '[]') END) ORDER BY l.oid), '[]')
      FROM (${LEAVES}) l JOIN pg_namespace s ON s.oid = l.relnamespace),
    'labels', (${REACHED} SELECT coalesce(json_object_agg(e.oid, e.enumlabel), '{}')
      FROM pg_enum e WHERE e.enumtypid IN (SELECT typ FROM reached)),
    'attributes', (${REACHED} SELECT coalesce(json_object_agg(t.oid, (
        SELECT string_agg(format('%s %I %s %s', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)), '{}')
      FROM pg_type t WHERE t.typtype = 'c' AND t.oid IN (SELECT typ FROM reached)),
    'published', ${publishedSql(publication, serverVersion)},
    'columns', (${COLUMNS})) AS described
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE ${CAPTURABLE} AND (${condition})
  ORDER BY n.nspname, c.relname`;
};

/** What means something else to a matcher of paths than in a name → half a surrogate pair, which no name can hold. */
const NO_PATHS: Readonly<Record<string, string>> = {
  '/': '\udc00',
  '\n': '\udc01',
  '\r': '\udc02',
  '\u2028': '\udc03',
  '\u2029': '\udc04',
};
const noPath = (text: string): string => text.replace(/[/\n\r\u2028\u2029]/g, char => NO_PATHS[char]!);

/** Matches names such as 'public.orders' with patterns such as 'public.*', of any characters. */
export function nameMatcher(
  patterns: readonly string[],
  ignored: readonly string[] = [],
): (name: string) => boolean {
  const matches = picomatch(patterns.map(noPath), {ignore: ignored.map(noPath), dot: true});
  return name => matches(noPath(name));
}

/** Does `FRESHET_TABLES_INCLUDE` choose the table, and `FRESHET_TABLES_EXCLUDE` leave it? */
export function tableChooser(settings: Settings): (table: {schema: string; table: string}) => boolean {
  const chosen = nameMatcher(settings.FRESHET_TABLES_INCLUDE, settings.FRESHET_TABLES_EXCLUDE);
  return ({schema, table}) => chosen(tableName(schema, table));
}

/** The permanent tables of this database that the patterns choose; partitions come through their root. */
export async function readCatalog(
  client: ClientBase,
  settings: Settings,
  serverVersion: number,
  condition = 'true',
): Promise<CatalogTable[]> {
  const sql = describeSql(condition, {publication: settings.FRESHET_PUBLICATION, serverVersion});
  const {rows} = await client.query<{described: unknown}>(sql);
  const chosen = tableChooser(settings);
  // Of a table that was dropped since the query began nothing more can be told.
  const there = rows.filter(({described}) => (described as Record<string, unknown>).mayRead !== null);
  return there.map(({described}) => CatalogTable.parse(described)).filter(chosen);
}

/**
 * Describes tables while nobody can alter them, and the position in the WAL at which that holds. Tables that are gone
 * are left out. Throws `pg.locked` where somebody alters one of them for longer than `LOCK_MS`.
 */
export async function describeLocked(
  client: ClientBase,
  settings: Settings,
  serverVersion: number,
  oids: readonly number[],
  within?: (tables: CatalogTable[]) => Promise<void>,
): Promise<{tables: CatalogTable[]; position: Lsn}> {
  const condition = `c.oid IN (${oids.join(', ') || 'NULL'})`;
  await client.query(`BEGIN; SET LOCAL lock_timeout = ${LOCK_MS}`);
  try {
    for (const table of await readCatalog(client, settings, serverVersion, condition)) {
      if (table.mayRead) await client.query(lockSql(table));
    }
    // Read once more: what a table was called, and what it was, can have changed until its lock was there.
    const tables = await readCatalog(client, settings, serverVersion, condition);
    const position = await currentPosition(client);
    await within?.(tables);
    await client.query('COMMIT');
    return {tables, position};
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw asSourceError(error);
  }
}

const LOCK_MS = 2_000;

/** The weakest lock there is: it keeps the table from being altered, and nothing else. */
export const lockSql = ({schema, table, kind}: CatalogTable): string =>
  `LOCK TABLE ${kind === 'p' ? '' : 'ONLY '}${pgName(schema, table)} IN ACCESS SHARE MODE`;

/** A description without what changes with every row. */
export function lasting(table: CatalogTable): string {
  const {estimatedRows: _rows, ...rest} = table;
  return JSON.stringify({...rest, leaves: rest.leaves.map(({empty: _empty, ...leaf}) => leaf)});
}
