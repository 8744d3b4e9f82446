import {setTimeout as sleep} from 'node:timers/promises';
import type pg from 'pg';
import {z} from 'zod';
import {run} from '../pipeline.ts';
import {verify} from '../reconcile/verify.ts';
import {loadSettings} from '../settings/settings.ts';
import {chName, rows} from '../sink/clickhouse.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {rowsOfClickHouse, rowsOfPostgres} from './as-text.ts';
import {readTables, type Table} from './catalog.ts';
import type {Target, World} from './place.ts';

/** Differences that are told for one table. */
const MOST_TOLD = 8;

/** As the product calls the view of a table's current rows. */
const viewOf = ({schema, name}: Table): string => (schema === 'public' ? name : `${schema}__${name}`);

/**
 * Everything that is not as it must be at the end of a history, as lines for a person; empty where the streamed
 * tables equal PostgreSQL, by `verify` and row by row, and equal what a new pipeline reads.
 */
export async function differences(world: World, streamed: Target, fresh: Target): Promise<string[]> {
  const tables = await readTables(world.pg);
  const [verified, compared, read] = await Promise.all([
    verifyDifferences(world, streamed),
    textDifferences(world.pg, streamed, tables, 'streamed'),
    readAnew(world, fresh).then(() => textDifferencesOfViews(streamed, fresh, tables)),
  ]);
  return [...verified, ...compared, ...read, ...(await otherViews(streamed, tables))];
}

async function verifyDifferences({settings}: World, {client}: Target): Promise<string[]> {
  const verdicts = await verify({client, settings, timeoutMs: 20_000});
  return verdicts
    .filter(({verdict}) => verdict !== 'equal')
    .map(
      ({table, verdict, reason, differences: found}) =>
        `verify: ${table} is ${verdict}${reason && ` (${reason})`} ${JSON.stringify(found.slice(0, MOST_TOLD))}`,
    );
}

async function textDifferences(
  client: pg.Client,
  target: Target,
  tables: readonly Table[],
  which: string,
): Promise<string[]> {
  const found: string[] = [];
  for (const table of tables) {
    const columns = await columnsOf(target, viewOf(table));
    const wanted = table.columns.filter(({generated}) => generated !== 'v').map(({name}) => name);
    if (JSON.stringify([...columns].sort()) !== JSON.stringify([...wanted].sort())) {
      found.push(
        `${which}: ${table.schema}.${table.name} has columns ${wanted.join(', ')}; its view has ${columns.join(', ') || 'none'}`,
      );
      continue;
    }
    const [source, shown] = await Promise.all([
      rowsOfPostgres(client, table),
      rowsOfClickHouse(target.client, target.names.analytics, viewOf(table), table),
    ]);
    found.push(...unequal(source, shown).map(line => `${which}: ${table.schema}.${table.name} ${line}`));
  }
  return found;
}

/** Compares two multisets of rows. */
function unequal(source: readonly string[], shown: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const row of source) counts.set(row, (counts.get(row) ?? 0) + 1);
  for (const row of shown) counts.set(row, (counts.get(row) ?? 0) - 1);
  const lines = [...counts]
    .filter(([, count]) => count !== 0)
    .map(([row, count]) => `${count > 0 ? 'PostgreSQL has' : 'ClickHouse has'} ${row.slice(0, 600)}`)
    .sort();
  return lines.length > MOST_TOLD
    ? [...lines.slice(0, MOST_TOLD), `… ${lines.length - MOST_TOLD} more`]
    : lines;
}

/** No view but those of tables that there are. */
async function otherViews(target: Target, tables: readonly Table[]): Promise<string[]> {
  const wanted = new Set(tables.map(viewOf));
  return (await target.added())
    .filter(({database, name}) => database === target.names.analytics && !wanted.has(name))
    .map(({name}) => `streamed: the view ${name} is of no table that there is`);
}

/** Another pipeline with a slot and databases of its own reads everything. */
async function readAnew({environment}: World, fresh: Target): Promise<void> {
  const settings = loadSettings({
    ...environment,
    FRESHET_TRANSPORT: 'direct',
    FRESHET_SLOT: `${environment.FRESHET_SLOT}_fresh`,
    FRESHET_TOPIC_PREFIX: `${environment.FRESHET_TOPIC_PREFIX}_fresh`,
    FRESHET_CLICKHOUSE_DATABASE: fresh.names.cdc,
    FRESHET_ANALYTICS_DATABASE: fresh.names.analytics,
  });
  const stop = new AbortController();
  let told = Promise.withResolvers<void>();
  const quiet = quietLog();
  const info = (): void => {
    told.resolve();
    told = Promise.withResolvers<void>();
  };
  const running = run({settings, log: {...quiet, info}, signal: stop.signal});
  running.catch(() => {}); // awaited below
  try {
    await Promise.race([running, finished(fresh, () => told.promise, stop.signal)]);
  } finally {
    stop.abort();
    await running;
  }
}

const Done = z.object({done: z.number()});
const POLL_MS = 1_000;

/** Looks when the pipeline has told something, and now and then. */
async function finished(
  {client, names}: Target,
  told: () => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const [source] = await rows(
      client,
      Done,
      `SELECT snapshot_done AS done FROM ${chName(names.cdc, '_source')} FINAL`,
    );
    if (source?.done === 1) return;
    await Promise.race([told(), sleep(POLL_MS)]);
  }
}

/** What is shown of the stream and of the new reading, compared by ClickHouse. */
async function textDifferencesOfViews(
  streamed: Target,
  fresh: Target,
  tables: readonly Table[],
): Promise<string[]> {
  const found: string[] = [];
  for (const table of tables) {
    const list = table.columns.map(({name}) => chName(name)).join(', ');
    const [one, other] = [streamed, fresh].map(
      ({names}) => `SELECT ${list} FROM ${chName(names.analytics, viewOf(table))}`,
    );
    const count = (sql: string): string => `(SELECT count() FROM (${sql}))`;
    const [row] = await rows(
      streamed.client,
      z.object({counts: z.array(z.coerce.number())}),
      `SELECT [${count(`${one} EXCEPT ${other}`)}, ${count(`${other} EXCEPT ${one}`)}, ${count(one!)}, ${count(other!)}] AS counts`,
    );
    const [more, less, all, anew] = row!.counts;
    if (more !== 0 || less !== 0 || all !== anew) {
      found.push(
        `anew: of ${table.schema}.${table.name} the stream has ${all} rows and a new snapshot ${anew}; ${more} of the one and ${less} of the other are not in both`,
      );
    }
  }
  return found;
}

async function columnsOf({client, names}: Target, view: string): Promise<string[]> {
  const found = await rows(
    client,
    z.object({name: z.string()}),
    'SELECT name FROM system.columns WHERE database = {database: String} AND table = {view: String}',
    {database: names.analytics, view},
  );
  return found.map(({name}) => name);
}
