import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type TableSchema, targetName, viewName} from '../source/table-schema.ts';
import {type ClickHouseClient, chLiteral, chName, command, rows} from './clickhouse.ts';

/** Behind the source's columns in every target table. A source column may not have one of these names. */
export const TECHNICAL_COLUMNS: readonly (readonly [string, string])[] = [
  ['_version', 'UInt128'],
  ['_is_deleted', 'UInt8'],
  ['_commit_ts', "DateTime64(6, 'UTC')"],
  ['_ingested_at', "DateTime64(3, 'UTC') DEFAULT now64(3)"],
];

/** The target table of a source table, quoted. */
export const targetTable = (settings: Settings, table: TableSchema): string =>
  chName(settings.FRESHET_CLICKHOUSE_DATABASE, targetName(table.definition));

/**
 * Makes the target table, and the view of its current rows that everyone else reads. Throws `ch.target_mismatch`
 * where a table of that name has other columns, another engine or another key.
 */
export async function createTarget(
  client: ClickHouseClient,
  settings: Settings,
  table: TableSchema,
): Promise<void> {
  const target = targetTable(settings, table);
  const columns = [
    ...table.columns.map(column => [column.name, column.stored.column] as const),
    ...TECHNICAL_COLUMNS,
  ];
  const key = table.definition.key.map(name => chName(name)).join(', ');
  const fsync = settings.FRESHET_CLICKHOUSE_FSYNC
    ? ' SETTINGS fsync_after_insert = 1, fsync_part_directory = 1'
    : '';
  await command(
    client,
    `CREATE TABLE IF NOT EXISTS ${target} (${columns.map(([name, type]) => `${chName(name)} ${type}`).join(', ')})
     ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY (${key})${fsync}
     COMMENT ${chLiteral(`${table.name}, every version; read the view of its current rows instead`)}`,
  );
  await checkTarget(client, settings, table);
  await command(
    client,
    `CREATE OR REPLACE VIEW ${chName(settings.FRESHET_ANALYTICS_DATABASE, viewName(settings, table.definition))}
     DEFINER = CURRENT_USER SQL SECURITY DEFINER
     AS SELECT ${table.columns.map(column => chName(column.name)).join(', ')} FROM ${target} FINAL WHERE _is_deleted = 0
     COMMENT ${chLiteral(`Current rows of ${table.name}`)}`,
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
const TargetEngine = z.object({engine_full: z.string(), sorting_key: z.string()});

async function checkTarget(client: ClickHouseClient, settings: Settings, table: TableSchema): Promise<void> {
  const params = {database: settings.FRESHET_CLICKHOUSE_DATABASE, table: targetName(table.definition)};
  const where = 'database = {database: String} AND {table: String} =';
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
      `SELECT engine_full, sorting_key FROM system.tables WHERE ${where} name`,
      params,
    ),
  ]);
  const plain = (type: string): string => type.replace(/ DEFAULT .*/, '').replaceAll(' ', '');
  const wanted = [
    ...table.columns.map(column => [column.name, column.stored.column] as const),
    ...TECHNICAL_COLUMNS,
  ];
  const problems = wanted.flatMap(([name, type]) => {
    const column = found.find(candidate => candidate.name === name);
    if (!column) return [`column ${name} is missing`];
    return plain(column.type) === plain(type) ? [] : [`column ${name} is ${column.type}, not ${type}`];
  });
  if (
    !/^(Replicated|Shared)?ReplacingMergeTree\(.*_version, _is_deleted\)/.test(engine[0]?.engine_full ?? '')
  ) {
    problems.push(`the engine is ${engine[0]?.engine_full}`);
  }
  // ClickHouse prints a key with quotes where it needs them.
  const bare = (text: string): string => text.replaceAll(/[`\\ ()]/g, '');
  const key = table.definition.key.join(',');
  if (bare(engine[0]?.sorting_key ?? '') !== bare(key))
    problems.push(`it is ordered by ${engine[0]?.sorting_key}, not ${key}`);
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

/** The start of an INSERT of rows of this table: plain where the wire holds what the columns hold. */
export function insertStatement(settings: Settings, table: TableSchema): string {
  const target = targetTable(settings, table);
  const names = [...table.columns.map(column => column.name), '_version', '_is_deleted', '_commit_ts'];
  const list = names.map(name => chName(name)).join(', ');
  if (table.columns.every(column => column.stored.input === undefined))
    return `INSERT INTO ${target} (${list})`;
  const read = [
    ...table.columns.map(({name, stored}) => `${chName(name)} ${stored.input?.type ?? stored.column}`),
    ...TECHNICAL_COLUMNS.slice(0, 3).map(([name, type]) => `${chName(name)} ${type}`),
  ].join(', ');
  const values = table.columns.map(({name, stored}) => stored.input?.expr(chName(name)) ?? chName(name));
  return `INSERT INTO ${target} (${list}) SELECT ${[...values, '_version', '_is_deleted', '_commit_ts'].join(', ')} FROM input(${chLiteral(read)})`;
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
  const key = table.definition.key.map(name => chName(name)).join(', ');
  await command(
    client,
    `INSERT INTO ${target} (${key}, _version, _is_deleted, _commit_ts)
     SELECT ${key}, toUInt128('${horizon.version}'), 1, fromUnixTimestamp64Micro(${horizon.commitMicros}, 'UTC')
     FROM ${target} FINAL WHERE _version < toUInt128('${horizon.version}') AND _is_deleted = 0`,
  );
}
