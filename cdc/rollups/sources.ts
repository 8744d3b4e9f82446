import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import type {Names} from '../../clickhouse/migration-files.ts';
import {columnsOf, NAME, nameIn} from '../../clickhouse/rollup-tables.ts';
import {type ClickHouseClient, chName, command, rows} from '../sink/clickhouse.ts';

/**
 * A table of the source that rollups are computed from. Whatever is written to its target leaves a mark, the key and
 * version of the row, by a materialized view; marks are taken all at once, and thrown away when the rollups are done.
 */
export interface Source {
  readonly name: string;
  /** What its view of current rows shows, quoted; its marks are of this one. */
  readonly target: string;
  /** The same, without its database. */
  readonly targetName: string;
  readonly uuid: string;
  /** The table of that name and what the columns that are used stand for: rows can change with it that are not written. */
  readonly definition: string;
  /** Quoted. */
  readonly keyColumns: readonly string[];
  /** The same as a list. */
  readonly key: string;
  readonly marks: string;
  /** Taken marks that are being worked at, under this claim. */
  readonly batch: string;
}

/** What there is of its marks. */
export interface MarkedSource extends Source {
  /** Is what is written to the target marked? */
  readonly isMarked: boolean;
  /** Is there a table for its marks? */
  readonly hasMarks: boolean;
}

export const MARKS = '_marks_';
export const BATCH = '_batch_';
/** A batch of an earlier claim that nobody can add to any more. */
const LEFT = '_left';

const Shown = z.object({name: z.string(), as_select: z.string()});
const Table = z.object({name: z.string(), uuid: z.string(), sorting_key: z.string(), as_select: z.string()});
const Column = z.object({table: z.string(), name: z.string(), type: z.string(), value: z.string()});

/** `SELECT … FROM a.b FINAL …` → b */
function tableIn(select: string): string | undefined {
  const [, , , quoted, plain] = new RegExp(`FROM ${NAME}\\.${NAME}`).exec(select) ?? [];
  return nameIn(quoted, plain);
}

/** `SELECT a, b AS c FROM …`, c → b; a view that shows all of a table has them under their own names. */
function storedAs(select: string, column: string): string {
  const [, quoted, plain] = new RegExp(`${NAME} AS \`?${column}\`?[,\\s]`).exec(select) ?? [];
  return nameIn(quoted, plain) ?? column;
}

/**
 * The sources of these names whose current rows can be read, and whether their marks are those of what is shown.
 * @param wanted name → the columns that are used
 */
export async function readSources(
  client: ClickHouseClient,
  names: Names,
  wanted: ReadonlyMap<string, ReadonlySet<string>>,
  claim: bigint,
): Promise<MarkedSource[]> {
  const shown = await rows(
    client,
    Shown,
    `SELECT name, as_select FROM system.tables WHERE database = {analytics: String} AND name IN {wanted: Array(String)}`,
    {analytics: names.analytics, wanted: [...wanted.keys()]},
  );
  const targets = new Map(shown.map(({name, as_select}) => [name, tableIn(as_select)]));
  const tables = await rows(
    client,
    Table,
    `SELECT name, toString(uuid) AS uuid, sorting_key, as_select FROM system.tables
     WHERE database = {cdc: String} AND name IN {tables: Array(String)}`,
    {
      cdc: names.cdc,
      tables: [...targets.values(), ...[...wanted.keys()].flatMap(name => [viewOf(name), MARKS + name])],
    },
  );
  const columns = await rows(
    client,
    Column,
    `SELECT table, name, type, default_expression AS value FROM system.columns
     WHERE database = {cdc: String} AND table IN {tables: Array(String)} ORDER BY table, name`,
    {cdc: names.cdc, tables: [...targets.values(), ...[...wanted.keys()].map(name => MARKS + name)]},
  );
  const byName = new Map(tables.map(table => [table.name, table]));
  return [...targets].flatMap(([name, target]) => {
    const table = byName.get(target ?? '');
    if (!table) return [];
    const view = byName.get(viewOf(name));
    const keyColumns = columnsOf(table.sorting_key).map(column => chName(column));
    const typeOf = (of: string, column: string): string | undefined =>
      columns.find(found => found.table === of && found.name === column)?.type;
    const hasMarks = columnsOf(table.sorting_key).every(
      column => typeOf(MARKS + name, column) === typeOf(table.name, column),
    );
    return {
      name,
      target: chName(names.cdc, table.name),
      targetName: table.name,
      uuid: table.uuid,
      definition: JSON.stringify([
        table.uuid,
        [...(wanted.get(name) ?? [])].sort().map(column => {
          const stored = storedAs(shown.find(view => view.name === name)!.as_select, column);
          const found = columns.find(other => other.table === table.name && other.name === stored);
          return [column, stored, found?.type, found?.value];
        }),
      ]),
      keyColumns,
      key: keyColumns.join(', '),
      marks: chName(names.cdc, MARKS + name),
      batch: chName(names.cdc, `${BATCH}${name}_${claim}`),
      hasMarks,
      isMarked: hasMarks && view !== undefined && tableIn(view.as_select) === table.name,
    };
  });
}

const viewOf = (name: string): string => `${MARKS}${name}_mv`;

/**
 * From its return on, every row that is written to the target leaves a mark; rows that were there before do not, so
 * that what is computed from the source must be filled. Marks of the target before stay: an INSERT may be writing one.
 */
export async function markSource(
  client: ClickHouseClient,
  names: Names,
  source: MarkedSource,
): Promise<void> {
  const {key, target, uuid, marks, batch, hasMarks} = source;
  const view = chName(names.cdc, viewOf(source.name));
  const onCluster = names.cluster ? ` ON CLUSTER ${chName(names.cluster)}` : '';
  const marked = `SELECT ${key}, _version, now() AS _at, toLowCardinality('${uuid}') AS _target FROM ${target}`;
  await command(client, `DROP VIEW IF EXISTS ${view}${onCluster} SYNC`);
  if (!hasMarks)
    for (const table of [marks, batch])
      await command(client, `DROP TABLE IF EXISTS ${table}${onCluster} SYNC`);
  await command(
    client,
    `CREATE TABLE IF NOT EXISTS ${marks}${onCluster} ENGINE = MergeTree ORDER BY (${key})
     COMMENT 'Rows of ${source.name} that were written, and are not in the rollups yet' EMPTY AS ${marked}`,
  );
  await makeBatch(client, source, onCluster);
  await command(client, `CREATE MATERIALIZED VIEW ${view}${onCluster} TO ${marks} AS ${marked}`);
  await insertsEnd(client);
}

export async function makeBatch(client: ClickHouseClient, source: Source, onCluster = ''): Promise<void> {
  await command(client, `CREATE TABLE IF NOT EXISTS ${source.batch}${onCluster} AS ${source.marks}`);
}

/** An INSERT that began before the view was made does not write to it, and its rows may come later. */
async function insertsEnd(client: ClickHouseClient): Promise<void> {
  const Running = z.object({query_id: z.string()});
  const sql = "SELECT query_id FROM system.processes WHERE query_kind IN ('Insert', 'AsyncInsertFlush')";
  let running = await rows(client, Running, sql);
  while (running.length > 0) {
    await sleep(20);
    running = await rows(client, Running, `${sql} AND query_id IN {ids: Array(String)}`, {
      ids: running.map(({query_id}) => query_id),
    });
  }
}

/** Marks that an earlier claim took, and did not finish, go into the batches of this one. */
export async function adoptBatches(
  client: ClickHouseClient,
  names: Names,
  sources: readonly Source[],
  claim: bigint,
): Promise<void> {
  const found = await rows(
    client,
    z.object({name: z.string()}),
    `SELECT name FROM system.tables WHERE database = {cdc: String} AND startsWith(name, {batch: String}) AND NOT endsWith(name, {own: String})`,
    {cdc: names.cdc, batch: BATCH, own: `_${claim}`},
  );
  for (const {name} of found) {
    const [, of] = new RegExp(`^${BATCH}(.+)_\\d+(?:${LEFT})?$`).exec(name) ?? [];
    const source = sources.find(candidate => candidate.name === of);
    if (!source) continue; // it cannot be read now, and goes on being marked
    const left = name.endsWith(LEFT) ? name : name + LEFT;
    // Its owner, if it still lives, can take no more marks into it.
    if (left !== name)
      await command(client, `RENAME TABLE ${chName(names.cdc, name)} TO ${chName(names.cdc, left)}`);
    await movePart(client, chName(names.cdc, left), source.batch);
    await command(client, `DROP TABLE ${chName(names.cdc, left)} SYNC`);
  }
}

const movePart = (client: ClickHouseClient, from: string, to: string): Promise<void> =>
  command(client, `ALTER TABLE ${from} MOVE PARTITION tuple() TO TABLE ${to}`);

const Counts = z.object({marks: z.array(z.coerce.number())});

/** How many rows each of the tables has. */
async function countRows(client: ClickHouseClient, tables: readonly string[]): Promise<number[]> {
  const counts = tables.map(table => `(SELECT count() FROM ${table})`);
  const [found] = await rows(client, Counts, `SELECT [${counts.join(', ')}]::Array(UInt64) AS marks`);
  return found!.marks;
}

/** Takes all marks there are; gives how many each batch has now. */
export async function takeMarks(client: ClickHouseClient, sources: readonly Source[]): Promise<number[]> {
  const waiting = await countRows(
    client,
    sources.map(({marks}) => marks),
  );
  for (const [i, source] of sources.entries())
    if (waiting[i]! > 0) await movePart(client, source.marks, source.batch);
  return countRows(
    client,
    sources.map(({batch}) => batch),
  );
}

/**
 * A mark can be seen before its row: those go back, to be taken again. One whose row does not come for an hour is of
 * an insert that failed, and one of another target is of none that is read.
 */
export const returnStatement = ({marks, batch, key, target, uuid}: Source, where: string): string =>
  `INSERT INTO ${marks} SELECT * FROM ${batch} WHERE ${where} AND _target = '${uuid}' AND _at > now() - INTERVAL 1 HOUR AND (${key}, _version) NOT IN (
     SELECT ${key}, _version FROM ${batch} AS mark INNER JOIN (
       SELECT ${key}, max(_version) AS seen FROM ${target} WHERE (${key}) IN (SELECT ${key} FROM ${batch} WHERE ${where}) GROUP BY ${key}
     ) AS row USING (${key}) WHERE ${where} AND mark._version <= row.seen)`;

/** µs since 1970 up to which all that was committed in the sources can be seen; null where that is not known of one. */
export async function completeUpTo(
  client: ClickHouseClient,
  {cdc}: Pick<Names, 'cdc'>,
  sources: readonly Source[],
): Promise<string | null> {
  const [found] = await rows(
    client,
    z.object({tables: z.coerce.number(), micros: z.string().nullable()}),
    `SELECT count() AS tables, if(countIf(state = 'snapshot' OR reached IS NULL) > 0, NULL, toString(min(reached))) AS micros FROM (
       SELECT t.state AS state, toUnixTimestamp64Micro(w.complete_up_to) AS reached
       FROM (SELECT * FROM {cdc: Identifier}._tables FINAL) AS t
       LEFT JOIN (SELECT * REPLACE (toNullable(complete_up_to) AS complete_up_to) FROM {cdc: Identifier}._watermarks FINAL) AS w USING (schema_name, table_name)
       WHERE t.state <> 'dropped' AND has({targets: Array(String)}, t.target)
     )`,
    {cdc, targets: sources.map(({targetName}) => targetName)},
  );
  return found && found.tables === sources.length ? found.micros : null;
}
