import {buffer} from 'node:stream/consumers';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import type {AddedColumn} from '../source/schema-change.ts';
import {
  type ColumnSchema,
  type TableSchema,
  targetKey,
  targetName,
  viewName,
} from '../source/table-schema.ts';
import {typeText} from '../types/types.ts';
import {asTargetError, type ClickHouseClient, chLiteral, chName, command, rows} from './clickhouse.ts';

/** Behind the source's columns in every target table. A source column may not have one of these names. */
export const TECHNICAL_COLUMNS: readonly (readonly [name: string, type: string, about: string])[] = [
  ['_version', 'UInt128', 'of versions of a row, that with the highest is its newest'],
  ['_is_deleted', 'UInt8', '1: the row was deleted'],
  ['_commit_ts', "DateTime64(6, 'UTC')", 'when its change was committed at the source'],
  ['_ingested_at', "DateTime64(3, 'UTC') DEFAULT now64(3)", 'when this version was written here'],
];

/** What explorers read of a column. */
const about = ({type, inKey}: ColumnSchema): string =>
  `${typeText(type)} at the source${inKey ? ', of the key' : ''}`;

const wantedColumns = (table: TableSchema): (readonly [name: string, type: string, about: string])[] => [
  ...table.columns.map(column => [column.target, column.stored.column, about(column)] as const),
  ...TECHNICAL_COLUMNS,
];

/** The target table of a source table, quoted. */
export const targetTable = (settings: Settings, table: TableSchema): string =>
  chName(settings.FRESHET_CLICKHOUSE_DATABASE, targetName(table.definition));

/**
 * Makes the target table. Throws `ch.target_mismatch` where a table of that name has other columns, another engine or
 * another key.
 */
export async function createTarget(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
): Promise<void> {
  const columns = wantedColumns(table).map(
    ([name, type, text]) => `${chName(name)} ${type} COMMENT ${chLiteral(text)}`,
  );
  const key = targetKey(table)
    .map(name => chName(name))
    .join(', ');
  // Rows are looked up by their key all the time, by rollups and whoever asks for one: an eighth of the usual granule.
  const granule = 'index_granularity = 1024';
  const fsync = settings.FRESHET_CLICKHOUSE_FSYNC ? ', fsync_after_insert = 1, fsync_part_directory = 1' : '';
  await command(
    client,
    `CREATE TABLE IF NOT EXISTS ${targetTable(settings, table)} (${columns.join(', ')})
     ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY (${key}) SETTINGS ${granule}${fsync}
     COMMENT ${chLiteral(commentOf(table))}`,
  );
  await checkTarget(client, settings, table);
}

const commentOf = ({name}: TableSchema): string =>
  `${name}, every version; read the view of its current rows instead`;

/** Did `createTarget` make the target? What somebody else made is never dropped. */
export async function isOurs(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
): Promise<boolean> {
  const found = await rows(
    client,
    z.object({name: z.string()}),
    'SELECT name FROM system.tables WHERE database = {database: String} AND name = {name: String} AND comment = {comment: String}',
    {
      database: settings.FRESHET_CLICKHOUSE_DATABASE,
      name: targetName(table.definition),
      comment: commentOf(table),
    },
  );
  return found.length > 0;
}

/** Makes the view of the current rows, which everyone else reads, show this target under today's names. */
export async function showTarget(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
): Promise<void> {
  const columns = table.columns.map(({name, target}) =>
    name === target ? chName(name) : `${chName(target)} AS ${chName(name)}`,
  );
  await command(
    client,
    `CREATE OR REPLACE VIEW ${currentRows(settings, table)}
     DEFINER = CURRENT_USER SQL SECURITY DEFINER
     AS SELECT ${columns.join(', ')} FROM ${targetTable(settings, table)} FINAL WHERE _is_deleted = 0
     COMMENT ${chLiteral(`Current rows of ${table.name}`)}`,
  );
  // Said with their types in the statement above, values would be converted where a type is not just the target's.
  const comments = table.columns.map(
    column => `COMMENT COLUMN ${chName(column.name)} ${chLiteral(about(column))}`,
  );
  await command(client, `ALTER TABLE ${currentRows(settings, table)} ${comments.join(', ')}`);
}

/** Nobody can read the table's current rows any more; what was stored stays. */
export async function hideTarget(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
): Promise<void> {
  await command(client, `DROP VIEW IF EXISTS ${currentRows(settings, table)}`);
}

export const currentRows = (settings: Settings, {definition}: TableSchema): string =>
  chName(settings.FRESHET_ANALYTICS_DATABASE, viewName(settings, definition));

/**
 * Adds columns to a target in use, and makes others hold more. Rows of older definitions can still be written to it:
 * a column that they do not have shows what PostgreSQL shows for rows that were there before it.
 */
export async function widenTarget(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  {added, widened}: {added: readonly AddedColumn[]; widened: readonly ColumnSchema[]},
): Promise<void> {
  const target = targetTable(settings, table);
  const last = table.columns.findLast(({number}) =>
    added.every(({column}) => column.number !== number),
  )?.target;
  for (const {column, missing} of added) {
    const value = missing === undefined ? undefined : await literalOf(client, column, missing);
    const fallback = value === undefined ? '' : ` DEFAULT ${value}`;
    await command(
      client,
      `ALTER TABLE ${target} ADD COLUMN IF NOT EXISTS ${chName(column.target)} ${column.stored.column}${fallback} COMMENT ${chLiteral(about(column))} AFTER ${chName(last ?? '')}`,
    );
  }
  // The parts are rewritten in the background; until then the old values are converted as they are read.
  for (const column of widened) {
    await command(
      client,
      `ALTER TABLE ${target} MODIFY COLUMN ${chName(column.target)} ${column.stored.column} COMMENT ${chLiteral(about(column))} SETTINGS alter_sync = 0`,
    );
  }
}

/** A value as the encoder wrote it, as an expression in ClickHouse's SQL. */
async function literalOf(
  client: ClickHouseClient,
  {name, stored}: ColumnSchema,
  json: string,
): Promise<string> {
  const type = stored.input?.type ?? stored.column;
  const query = `SELECT ${chName(name)} FROM format(JSONEachRow, ${chLiteral(`${chName(name)} ${type}`)}, ${chLiteral(json)}) FORMAT Values`;
  const answer = await client
    .exec({query})
    .then(({stream}) => buffer(stream))
    .catch(error => {
      throw asTargetError(error);
    });
  const values = answer.toString('utf8').trim();
  // A literal is of no Variant before it is of the one type in it.
  const inner = /^Variant\((.*)\)$/.exec(type)?.[1];
  const value = values.slice(1, -1);
  const literal = inner ? `CAST(CAST(${value} AS ${inner}) AS ${type})` : `CAST(${value} AS ${type})`;
  return stored.input?.expr(literal) ?? literal;
}

/** Drops targets of earlier generations. */
export async function dropTarget(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
): Promise<void> {
  await command(
    client,
    `DROP TABLE IF EXISTS ${targetTable(settings, table)} SETTINGS max_table_size_to_drop = 0`,
  );
}

/** Names of all tables in the database of the targets. */
export async function existingTargets(client: ClickHouseClient, settings: Settings): Promise<Set<string>> {
  const found = await rows(
    client,
    z.object({name: z.string()}),
    'SELECT name FROM system.tables WHERE database = {database: String}',
    {database: settings.FRESHET_CLICKHOUSE_DATABASE},
  );
  return new Set(found.map(({name}) => name));
}

const TargetColumn = z.object({name: z.string(), type: z.string()});
const TargetEngine = z.object({engine_full: z.string(), sorting_key: z.string(), same_key: z.number()});

async function checkTarget(client: ClickHouseClient, settings: Settings, table: TableSchema): Promise<void> {
  const params = {database: settings.FRESHET_CLICKHOUSE_DATABASE, table: targetName(table.definition)};
  const where = 'database = {database: String} AND {table: String} =';
  const key = targetKey(table)
    .map(name => chName(name))
    .join(', ');
  const written = (list: string): string => `formatQuerySingleLineOrNull(concat('SELECT ', ${list}))`;
  const [found, engine] = await Promise.all([
    rows(
      client,
      TargetColumn,
      `SELECT name, type FROM system.columns WHERE ${where} table ORDER BY position`,
      params,
    ),
    rows(
      client,
      TargetEngine,
      // Both keys as ClickHouse itself writes them, which may keep the brackets around a single column.
      `SELECT engine_full, sorting_key, ifNull(${written('sorting_key')} IN (${written('{key: String}')}, ${written(`concat('(', {key: String}, ')')`)}), 0) AS same_key
       FROM system.tables WHERE ${where} name`,
      {...params, key},
    ),
  ]);
  const plain = (type: string): string => type.replace(/ DEFAULT .*/, '').replaceAll(' ', '');
  const problems = wantedColumns(table).flatMap(([name, type]) => {
    const column = found.find(candidate => candidate.name === name);
    if (!column) return [`column ${name} is missing`];
    return plain(column.type) === plain(type) ? [] : [`column ${name} is ${column.type}, not ${type}`];
  });
  if (
    !/^(Replicated|Shared)?ReplacingMergeTree\(.*_version, _is_deleted\)/.test(engine[0]?.engine_full ?? '')
  ) {
    problems.push(`the engine is ${engine[0]?.engine_full}`);
  }
  if (engine[0]?.same_key !== 1)
    problems.push(`it is ordered by ${engine[0]?.sorting_key}, not ${targetKey(table).join(', ')}`);
  if (problems.length > 0) {
    throw new PipelineError(
      'ch.target_mismatch',
      `${params.database}.${params.table}: ${problems.join('; ')}`,
      {
        table: table.name,
      },
    );
  }
}

/** The start of an INSERT of rows of this definition: plain where the wire has what the columns hold and are called. */
export function insertStatement(settings: Settings, table: TableSchema): string {
  const target = targetTable(settings, table);
  const technical = TECHNICAL_COLUMNS.slice(0, 3);
  const names = [...table.columns.map(column => column.target), ...technical.map(([name]) => name)];
  const list = names.map(name => chName(name)).join(', ');
  if (table.columns.every(({stored, name, target: own}) => stored.input === undefined && name === own))
    return `INSERT INTO ${target} (${list})`;
  const read = [
    ...table.columns.map(({name, stored}) => `${chName(name)} ${stored.input?.type ?? stored.column}`),
    ...technical.map(([name, type]) => `${chName(name)} ${type}`),
  ].join(', ');
  const values = table.columns.map(({name, stored}) => stored.input?.expr(chName(name)) ?? chName(name));
  return `INSERT INTO ${target} (${list}) SELECT ${[...values, ...technical.map(([name]) => name)].join(', ')} FROM input(${chLiteral(read)})`;
}

/** The start of an INSERT of rows of this definition as `COPY` writes them, behind each the constant 0. */
export function copyStatement(
  settings: Settings,
  table: TableSchema,
  {version, commitMicros}: {version: bigint; commitMicros: bigint},
): string {
  const names = [...table.columns.map(column => column.target), '_is_deleted', '_version', '_commit_ts'];
  const read = table.columns.map(({name, stored}) => `${chName(name)} ${stored.copy?.type}`);
  const values = table.columns.map(({name, stored}) => stored.copy?.expr(chName(name)));
  return `INSERT INTO ${targetTable(settings, table)} (${names.map(name => chName(name)).join(', ')})
    SELECT ${values.join(', ')}, _is_deleted, toUInt128('${version}'), fromUnixTimestamp64Micro(${commitMicros}, 'UTC')
    FROM input(${chLiteral([...read, '_is_deleted UInt8'].join(', '))})`;
}

/**
 * Writes a deletion at the version of a horizon for every row below it: a TRUNCATE, or what vanished before a
 * resync. It can run any number of times, and is run in each partition behind that partition's older rows.
 */
export async function deleteBelow(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
  horizon: {version: string; commitMicros: string},
): Promise<void> {
  const target = targetTable(settings, table);
  const key = targetKey(table)
    .map(name => chName(name))
    .join(', ');
  await command(
    client,
    `INSERT INTO ${target} (${key}, _version, _is_deleted, _commit_ts)
     SELECT ${key}, toUInt128('${horizon.version}'), 1, fromUnixTimestamp64Micro(${horizon.commitMicros}, 'UTC')
     FROM ${target} FINAL WHERE _version < toUInt128('${horizon.version}') AND _is_deleted = 0`,
  );
}
