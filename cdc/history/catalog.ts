import type pg from 'pg';
import {z} from 'zod';
import {pgName} from '../source/table-schema.ts';

/** A column as statements are made for it and as rows are compared by it. */
const Column = z.object({
  name: z.string(),
  /** As SQL has it: 'numeric(12,3)', 'text[]'. */
  type: z.string(),
  /** What is below arrays and domains, from `pg_type`. */
  base: z.object({name: z.string(), kind: z.string(), modifier: z.number(), array: z.boolean()}),
  notNull: z.boolean(),
  /** '' plain, 's' stored, 'v' virtual. */
  generated: z.string(),
  /** Are large values of it kept out of line as they are? */
  external: z.boolean(),
});
export type Column = z.infer<typeof Column>;

const Table = z.object({
  schema: z.string(),
  name: z.string(),
  partitioned: z.boolean(),
  identity: z.enum(['d', 'n', 'f', 'i']),
  columns: z.array(Column),
  primaryKey: z.array(z.string()),
  identityIndex: z.array(z.string()),
});
export type Table = z.infer<typeof Table>;

const KEY = (condition: string): string => `
  (SELECT coalesce(json_agg(a.attname ORDER BY k.n), '[]') FROM pg_index i
   CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
   WHERE i.indrelid = c.oid AND ${condition})`;

const TABLES = `
  SELECT n.nspname AS schema, c.relname AS name, c.relkind = 'p' AS partitioned, c.relreplident AS identity,
    ${KEY('i.indisprimary')} AS "primaryKey", ${KEY('i.indisreplident')} AS "identityIndex",
    (SELECT json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
        'notNull', a.attnotnull, 'generated', a.attgenerated, 'external', a.attstorage = 'e',
        'base', json_build_object('name', b.typname, 'kind', b.typtype, 'array', e.oid IS NOT NULL,
          'modifier', CASE WHEN d.typtypmod >= 0 THEN d.typtypmod ELSE a.atttypmod END)) ORDER BY a.attnum)
     FROM pg_attribute a
     JOIN pg_type t ON t.oid = a.atttypid
     LEFT JOIN pg_type d ON t.typtype = 'd' AND d.oid = t.oid
     LEFT JOIN pg_type e ON e.oid = coalesce(d.typbasetype, t.oid) AND e.typcategory = 'A'
     JOIN pg_type b ON b.oid = coalesce(e.typelem, d.typbasetype, t.oid)
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`;

/** All tables as this session sees them, its own uncommitted changes included; partitions come through their root. */
export async function readTables(client: pg.ClientBase): Promise<Table[]> {
  return z.array(Table).parse((await client.query(TABLES)).rows);
}

export const sqlName = ({schema, name}: Pick<Table, 'schema' | 'name'>): string => pgName(schema, name);

/** The columns by which PostgreSQL tells rows apart in the stream. */
export const keyNames = ({identity, identityIndex, primaryKey}: Table): readonly string[] =>
  identity === 'i' && identityIndex.length > 0 ? identityIndex : primaryKey;

/** Columns that statements may write. */
export const writable = (table: Table): Column[] => table.columns.filter(({generated}) => generated === '');

/** Columns whose values must be of one row alone: those of the primary key and of the identity. */
export const isUnique = (table: Table, {name}: Column): boolean =>
  table.primaryKey.includes(name) || table.identityIndex.includes(name);
