import type {ClientBase} from 'pg';
import picomatch from 'picomatch';
import {z} from 'zod';
import {Column, tableName} from './table-schema.ts';

/** A table as found in the catalog, with what preflight judges; not every one of them can be captured. */
export const CatalogTable = z.object({
  oid: z.number(),
  schema: z.string(),
  table: z.string(),
  kind: z.string(),
  identity: z.enum(['d', 'n', 'f', 'i']),
  isPartition: z.boolean(),
  /** Are rows hidden from the role? */
  rowSecurity: z.boolean(),
  mayRead: z.boolean(),
  /** May the role put it into a publication? */
  owned: z.boolean(),
  estimatedRows: z.number(),
  bytes: z.string(),
  primaryKey: z.array(z.string()).nullable(),
  primaryKeyName: z.string().nullable(),
  primaryKeyDeferrable: z.boolean(),
  identityIndex: z.array(z.string()).nullable(),
  /** `generated`: '' plain, 's' stored, 'v' virtual (`pg_attribute.attgenerated`). */
  columns: z.array(Column.extend({generated: z.string()})),
});
export type CatalogTable = z.infer<typeof CatalogTable>;

/** A true array type: int2vector and oidvector have elements too, but another text. */
const IS_ARRAY = 'EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)';

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
    'name', a.attname, 'typeOid', a.atttypid::bigint, 'generated', a.attgenerated,
    -- A domain's NOT NULL does not hold for every row (outer joins), so only the column's own counts.
    'notNull', a.attnotnull,
    'type', json_build_object('name', t.typname, 'kind', t.typtype, 'modifier', w.modifier, 'array', w.array,
      'delimiter', w.delimiter)) ORDER BY a.attnum), '[]')
  FROM walk w
  JOIN pg_attribute a ON a.attrelid = w.attrelid AND a.attnum = w.attnum
  JOIN pg_type t ON t.oid = w.typ
  WHERE t.typtype <> 'd' AND NOT (${IS_ARRAY} AND NOT w.array)`;

const INDEX_COLUMNS = (condition: string): string => `
  (SELECT json_agg(a.attname ORDER BY k.n)
   FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
   JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
   WHERE i.indrelid = c.oid AND k.n <= i.indnkeyatts AND ${condition})`;

const TABLES = `
  SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS table, c.relkind AS kind,
    c.relreplident AS identity, c.relispartition AS "isPartition",
    row_security_active(c.oid) AS "rowSecurity", pg_has_role(c.relowner, 'USAGE') AS owned,
    has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS "mayRead",
    greatest(c.reltuples, 0)::float8 AS "estimatedRows", pg_total_relation_size(c.oid)::text AS bytes,
    ${INDEX_COLUMNS('i.indisprimary')} AS "primaryKey",
    (SELECT conname FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p') AS "primaryKeyName",
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate)
      AS "primaryKeyDeferrable",
    ${INDEX_COLUMNS('i.indisreplident')} AS "identityIndex",
    (${COLUMNS}) AS columns
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
    AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname, c.relname`;

/** Patterns as settings give them: 'public.*', 'shop.orders'; '*' does not cross the dot. */
export interface TableFilter {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
}

/** The permanent tables of this database that the patterns choose; partitions come through their root. */
export async function readCatalog(client: ClientBase, filter: TableFilter): Promise<CatalogTable[]> {
  const {rows} = await client.query<Record<string, unknown>>(TABLES);
  const chosen = picomatch([...filter.include], {ignore: [...filter.exclude], dot: true});
  return rows
    .filter(row => row.isPartition === false && chosen(tableName(String(row.schema), String(row.table))))
    .map(row => CatalogTable.parse({...row, oid: Number(row.oid)}));
}
