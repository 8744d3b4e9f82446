import {z} from 'zod';
import {chName} from '../../cdc/sink/clickhouse.ts';
import type {BenchWorld} from './world.ts';

const Column = z.object({
  name: z.string(),
  type: z.string(),
  nullable: z.boolean(),
  precision: z.number().nullable(),
  scale: z.number().nullable(),
});
type Column = z.infer<typeof Column>;

/** What ClickHouse makes of the types that the workloads have. */
const TYPES: Readonly<Record<string, (column: Column) => string>> = {
  int4: () => 'Int32',
  int8: () => 'Int64',
  bool: () => 'Bool',
  text: () => 'String',
  jsonb: () => 'String',
  numeric: ({precision, scale}) => `Decimal(${precision}, ${scale})`,
  timestamptz: () => "DateTime64(6, 'UTC')",
};

/** Columns of a table as the peers' targets have them, `name type`, in order. */
export async function targetColumns(
  {pg}: BenchWorld,
  table: string,
): Promise<{name: string; type: string}[]> {
  const {rows} = await pg.query(
    `SELECT column_name AS name, udt_name AS type, is_nullable = 'YES' AS nullable,
       numeric_precision AS precision, numeric_scale AS scale
     FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position`,
    [table],
  );
  return z
    .array(Column)
    .parse(rows)
    .map(column => {
      const type = TYPES[column.type]?.(column);
      if (!type)
        throw new Error(`${table}.${column.name}: the peers' targets have no type for ${column.type}`);
      return {name: column.name, type: column.nullable ? `Nullable(${type})` : type};
    });
}

/** As a list within parentheses. */
export const columnList = (columns: readonly {name: string; type: string}[]): string =>
  columns.map(({name, type}) => `${chName(name)} ${type}`).join(', ');
