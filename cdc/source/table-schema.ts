import {createHash} from 'node:crypto';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ColumnType, columnType} from '../types/types.ts';

/** A column as PostgreSQL's catalog has it, in the order of the table, and where its values go. */
export const Column = z.object({
  name: z.string(),
  /** `pg_attribute.attnum`: the column's identity, whatever its name. */
  number: z.number(),
  /** Its name in the target table: the one it had first, so that rows of every definition find their place. */
  target: z.string(),
  typeOid: z.number(),
  /** May the target's column not hold NULL? Once it may, it stays so. */
  notNull: z.boolean(),
  type: z.object({
    name: z.string(),
    kind: z.string(),
    modifier: z.number(),
    array: z.boolean(),
    delimiter: z.string(),
  }),
});

/** What of a table decides how its rows are read and stored. It goes to the sink by `cdc._schemas`. */
export const TableDefinition = z.object({
  schema: z.string(),
  table: z.string(),
  oid: z.number(),
  /** Counts the target tables of this name: a table that must be read anew is read into another one. */
  generation: z.number(),
  /** Names in the target table of columns that were dropped: never used again there. */
  dropped: z.array(z.string()),
  /** Key columns in the order of their index: the primary key, or the index of REPLICA IDENTITY USING INDEX. */
  key: z.array(z.string()).min(1),
  columns: z.array(Column).min(1),
});
export type TableDefinition = z.infer<typeof TableDefinition>;

export interface ColumnSchema extends z.infer<typeof Column> {
  readonly stored: ColumnType;
  readonly inKey: boolean;
}

/** A captured table: its definition, and all that follows from it. */
export interface TableSchema {
  readonly definition: TableDefinition;
  /** 'schema.table', for people and as the key of maps; never for SQL. */
  readonly name: string;
  /** Names this very definition: a hash, so that every process finds the same. */
  readonly id: string;
  readonly columns: readonly ColumnSchema[];
  /** Indexes into `columns`, in key order. */
  readonly keyColumns: readonly number[];
}

/** Throws `type.unsupported`, naming the column, where its type has no mapping. */
export function tableSchema(definition: TableDefinition): TableSchema {
  const key = new Set(definition.key);
  const columns = definition.columns.map(column => ({
    ...column,
    inKey: key.has(column.name),
    stored: storedAs(column, key.has(column.name)),
  }));
  return {
    definition,
    name: tableName(definition.schema, definition.table),
    id: createHash('sha256').update(JSON.stringify(definition)).digest('hex').slice(0, 16),
    columns,
    keyColumns: definition.key.map(name => columns.findIndex(column => column.name === name)),
  };
}

function storedAs({name, type, notNull}: z.infer<typeof Column>, inKey: boolean): ColumnType {
  try {
    return columnType(type, notNull || inKey);
  } catch (error) {
    if (!(error instanceof PipelineError)) throw error;
    throw new PipelineError(error.code, `column ${name}: ${error.message}`, {cause: error});
  }
}

export const tableName = (schema: string, table: string): string => `${schema}.${table}`;

/** The name of the target table in the database of the pipeline. */
export const targetName = ({
  schema,
  table,
  generation,
}: {
  schema: string;
  table: string;
  generation: number;
}): string => `${schema}__${table}${generation > 1 ? `__${generation}` : ''}`;

/** The name of the view of a table's current rows, without its database. */
export function viewName(settings: Settings, {schema, table}: {schema: string; table: string}): string {
  return schema === settings.FRESHET_ANALYTICS_SCHEMA ? table : `${schema}__${table}`;
}

/** The key's columns in the target table, in key order. */
export const targetKey = ({columns, keyColumns}: TableSchema): string[] =>
  keyColumns.map(index => columns[index]!.target);

/** An identifier in PostgreSQL's SQL. */
export const pgName = (...parts: string[]): string =>
  parts.map(part => `"${part.replaceAll('"', '""')}"`).join('.');
/** A text literal in PostgreSQL's SQL, for the replication protocol, which takes no parameters. */
export const pgLiteral = (text: string): string => `'${text.replaceAll("'", "''")}'`;
