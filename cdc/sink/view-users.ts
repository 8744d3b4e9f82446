import {z} from 'zod';
import type {Settings} from '../settings/settings.ts';
import {type TableSchema, targetName, viewName} from '../source/table-schema.ts';
import {type ClickHouseClient, rows} from './clickhouse.ts';

const ViewRow = z.object({name: z.string(), as_select: z.string()});
const Line = z.object({explain: z.string()});

/** What one view reads: table ('database.name') → columns. */
type Reads = ReadonlyMap<string, ReadonlySet<string>>;

/**
 * The views that read these columns of a table, directly or by way of other views; each as 'database.name'. Asked
 * before the columns change: afterwards such a view fails, and ClickHouse says so only to its next reader.
 */
export async function viewsUsing(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  columns: readonly {name: string; target: string}[],
): Promise<string[]> {
  if (columns.length === 0) return [];
  const own = `${settings.FRESHET_ANALYTICS_DATABASE}.${viewName(settings, table.definition)}`;
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.${targetName(table.definition)}`;
  const views = await rows(
    client,
    ViewRow,
    `SELECT concat(database, '.', name) AS name, as_select FROM system.tables
     WHERE engine IN ('View', 'MaterializedView') AND database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA')`,
  );
  const reads = new Map<string, Reads>();
  const readsBy = async (view: z.infer<typeof ViewRow>): Promise<Reads> => {
    const known = reads.get(view.name) ?? (await readsOf(client, view.as_select));
    reads.set(view.name, known);
    return known;
  };
  const using = new Set<string>();
  const names = columns.map(({name}) => name);
  const targets = columns.map(column => column.target);
  for (const view of views) {
    if (view.name === own || !(mentions(view, own) || mentions(view, target))) continue;
    const read = await readsBy(view);
    if (uses(read.get(own), names) || uses(read.get(target), targets)) using.add(view.name);
  }
  // Whoever reads a view that fails, fails too.
  for (let before = -1; before !== using.size; ) {
    before = using.size;
    for (const view of views) {
      const failing = [...using].filter(name => mentions(view, name));
      if (using.has(view.name) || failing.length === 0) continue;
      const read = await readsBy(view);
      if (failing.some(name => read.has(name))) using.add(view.name);
    }
  }
  return [...using].sort();
}

/** Can its text be about this table? A name that must be quoted may be written in several ways. */
function mentions({as_select}: z.infer<typeof ViewRow>, table: string): boolean {
  const bare = table.slice(table.indexOf('.') + 1);
  return !/^\w+$/.test(bare) || as_select.includes(bare);
}

/** A column is also used by its parts (`name.size0`). */
const uses = (read: ReadonlySet<string> | undefined, columns: readonly string[]): boolean =>
  read !== undefined &&
  columns.some(column => [...read].some(name => name === column || name.startsWith(`${column}.`)));

const TABLE = /^\s*TABLE id: (\d+),.* table_name: (.*?)(?:, final: \d)?$/;
const COLUMN = /^\s*COLUMN id: \d+, column_name: (.*), result_type: .*, source_id: (\d+)$/;

/** What a SELECT reads, as ClickHouse's analyzer resolves it. One that it cannot resolve is broken already. */
async function readsOf(client: ClickHouseClient, select: string): Promise<Reads> {
  const plan = await rows(client, Line, `EXPLAIN QUERY TREE ${select}`).catch(
    (): z.infer<typeof Line>[] => [],
  );
  const tables = new Map<string, string>();
  for (const {explain} of plan) {
    const [, id, name] = TABLE.exec(explain) ?? [];
    if (id !== undefined && name !== undefined) tables.set(id, unescaped(name));
  }
  const reads = new Map([...tables.values()].map(name => [name, new Set<string>()]));
  for (const {explain} of plan) {
    const [, column, id] = COLUMN.exec(explain) ?? [];
    const table = id === undefined ? undefined : tables.get(id);
    if (table !== undefined && column !== undefined) reads.get(table)?.add(unescaped(column));
  }
  return reads;
}

const unescaped = (name: string): string => name.replace(/\\(.)/g, '$1');
