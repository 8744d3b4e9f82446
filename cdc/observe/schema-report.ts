import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {lettersText, openLetters} from '../sink/dead-letters.ts';
import {type ChangeRow, nameOf, Registry, type TableRow} from '../sink/registry.ts';
import {clientConfig, readServerVersion, withClient} from '../source/postgres.ts';
import {readTriggers} from '../source/schema-messages.ts';
import {tableName, targetName} from '../source/table-schema.ts';

/** Something that a person should see to: what is wrong, and what to do about it ('' where that is in the words). */
export interface Attention {
  readonly what: string;
  readonly todo: string;
}

/** A change of a table's definition, as people read it. */
export type ChangeLine = Readonly<Record<'when' | 'table' | 'what' | 'done', string>>;

export interface SchemaReport {
  /** 'schema.table' → why it is being read and how far that is, or why it is set aside. */
  readonly notes: ReadonlyMap<string, string>;
  /** Newest first. */
  readonly changes: readonly ChangeLine[];
  readonly attention: readonly Attention[];
}

const DAYS = 7;
const MOST = 10;

/** What became of the tables and of changes to them; empty before the pipeline has made its own tables. */
export async function readSchemaReport(client: ClickHouseClient, settings: Settings): Promise<SchemaReport> {
  const registry = new Registry(client, settings);
  try {
    const tables = await registry.tables();
    const changes = await registry.changes();
    const reading = await readingNotes(client, settings, registry, tables);
    const parked = tables.filter(({state}) => state === 'parked');
    const letters = await openLetters(client, settings);
    return {
      notes: new Map([
        ...reading,
        ...parked.map(row => [nameOf(row), withoutName(nameOf(row), row.reason)] as const),
      ]),
      changes: changeLines(changes, tables),
      attention: [
        ...parked.map(parkedAttention),
        ...[...letters].map(([name, open]) => ({
          what: `${name} has ${lettersText(open)}`,
          todo: `freshet dead-letter list ${name}; mend the cause, then: freshet dead-letter retry ${name} (or drop)`,
        })),
        ...(await failingViews(client, changes)),
      ],
    };
  } catch (error) {
    if (!(error instanceof PipelineError) || error.code !== 'ch.not_set_up') throw error;
    return {notes: new Map(), changes: [], attention: []};
  }
}

/** Problems begin with the table's name, which stands before them already. */
const withoutName = (name: string, text: string): string =>
  text.startsWith(`${name}: `) ? text.slice(name.length + 2) : text;

function parkedAttention(row: TableRow): Attention {
  const name = nameOf(row);
  const seen = row.schema_id === '' ? 'readers do not see it' : 'readers see it as it was';
  return {
    what: `${name} is parked: ${withoutName(name, row.reason)}`,
    todo: row.needs_read
      ? `${seen}. Mend it at the source, and it is read again by itself; or by: freshet dead-letter retry ${name}`
      : `${seen}. Mend it, then: freshet dead-letter retry ${name}; or: freshet resync ${name}`,
  };
}

/** What was done about a change; `reading`: the table's last one is still being answered. */
const DONE: Readonly<Record<string, (reading: boolean) => string>> = {
  'in place': () => 'in place',
  read: reading => (reading ? 'being read again' : 'read again'),
  park: () => 'parked',
  gone: () => 'its view is gone',
};

function changeLines(changes: readonly ChangeRow[], tables: readonly TableRow[]): ChangeLine[] {
  const since = new Date(Date.now() - DAYS * 86_400_000).toISOString().slice(0, 10);
  const reading = new Set(tables.filter(({state}) => state === 'snapshot').map(nameOf));
  return changes
    .filter(({at}) => at >= since)
    .slice(0, MOST)
    .map(({at, schema_name, table_name, kind, change}) => {
      const table = tableName(schema_name, table_name);
      // Newest first: only the table's last change can still be under way.
      const done = DONE[kind]?.(reading.delete(table)) ?? kind;
      return {when: at.slice(0, 19), table, what: withoutName(table, change), done};
    });
}

const Total = z.object({name: z.string(), total_rows: z.coerce.number().nullable()});

/** How far the readings are: rows that are there, of about as many as there were when it began. */
async function readingNotes(
  client: ClickHouseClient,
  settings: Settings,
  registry: Registry,
  tables: readonly TableRow[],
): Promise<[string, string][]> {
  const reading = tables.filter(({state}) => state === 'snapshot');
  if (reading.length === 0) return [];
  const entries = [...(await registry.history()).byOid.values()].flatMap(list => list.at(-1) ?? []);
  const totals = await rows(
    client,
    Total,
    'SELECT name, total_rows FROM system.tables WHERE database = {database: String}',
    {database: settings.FRESHET_CLICKHOUSE_DATABASE},
  );
  return reading.map(row => {
    const table = entries.find(entry => entry.table.schema.name === nameOf(row))?.table;
    const target = targetName(
      table?.schema.definition ?? {schema: row.schema_name, table: row.table_name, generation: 1},
    );
    const total = totals.find(({name}) => name === target)?.total_rows;
    const about = Math.round(table?.estimatedRows ?? 0);
    const of = about > 0 ? ` of about ${about.toLocaleString('en')}` : '';
    // Read into the table that is shown, new rows are not told from old ones.
    const far = target === row.target || total == null ? '' : `, ${total.toLocaleString('en')}${of} rows`;
    return [nameOf(row), `being read${far}${row.reason ? ` (${row.reason})` : ''}`];
  });
}

const ViewRow = z.object({name: z.string(), database: z.string(), view: z.string(), as_select: z.string()});

/** Views that used what was changed, and cannot be read since. */
async function failingViews(client: ClickHouseClient, changes: readonly ChangeRow[]): Promise<Attention[]> {
  const names = [...new Set(changes.flatMap(({views}) => views))];
  if (names.length === 0) return [];
  const there = await rows(
    client,
    ViewRow,
    `SELECT concat(database, '.', name) AS name, database, system.tables.name AS view, as_select FROM system.tables
     WHERE has({names: Array(String)}, concat(database, '.', system.tables.name)) ORDER BY name`,
    {names},
  );
  const failing: Attention[] = [];
  for (const {name, database, view, as_select: select} of there) {
    const change = changes.find(({views}) => views.includes(name))!;
    const cause = await failureOf(client, select);
    if (cause === undefined) continue;
    failing.push({
      what: `view ${name} fails since ${tableName(change.schema_name, change.table_name)} changed (${change.change}): ${cause}`,
      todo: `change or drop it: DROP VIEW ${chName(database, view)};`,
    });
  }
  return failing;
}

/** Plans it, by way of all the views that it reads, and reads nothing. */
async function failureOf(client: ClickHouseClient, select: string): Promise<string | undefined> {
  try {
    await rows(client, z.unknown(), `EXPLAIN ${select}`);
    return undefined;
  } catch (error) {
    const {message} = error as Error;
    return message.replace(/^ClickHouse: /, '').replace(/ in scope .*/s, '');
  }
}

/** How schema changes are found, in one line; and what to do where that is not as it should be. */
export async function readTriggersReport(
  settings: Settings,
): Promise<{line: string; attention: readonly Attention[]}> {
  const watched = 'schema changes: found by looking at the catalog every 2 s';
  if (settings.FRESHET_EVENT_TRIGGERS === 'off')
    return {line: `${watched} (FRESHET_EVENT_TRIGGERS=off)`, attention: []};
  const {inForce, current} = await withClient(clientConfig(settings), async client =>
    readTriggers(client, settings, await readServerVersion(client)),
  );
  if (!inForce)
    return {
      line: `${watched}; sooner and exactly once a superuser runs: freshet triggers | psql …`,
      attention: [],
    };
  const attention = current
    ? []
    : [
        {
          what: 'the event triggers are those of another release, role or publication',
          todo: 'a superuser runs: freshet triggers | psql …',
        },
      ];
  return {line: 'schema changes: announced by event triggers', attention};
}
