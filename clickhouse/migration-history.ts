import type {ClickHouseClient} from '@clickhouse/client';
import {PipelineError} from '../cdc/failures.ts';
import {chName} from '../cdc/sink/clickhouse.ts';
import {type MigrationFile, madeWith, type Names, statementsOf} from './migration-files.ts';

const HISTORY_TABLE = `
CREATE DATABASE IF NOT EXISTS {cdc} {on_cluster};
CREATE DATABASE IF NOT EXISTS {analytics} {on_cluster};
CREATE TABLE IF NOT EXISTS {cdc}._migrations {on_cluster} (
  file String,
  sha256 String,
  applied_by String DEFAULT currentUser(),
  applied_at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = ReplacingMergeTree(applied_at) ORDER BY file
COMMENT 'SQL files that were applied; read with FINAL';
`;

/** What the server has. */
export interface SchemaState {
  /** Path of each applied file → its checksum. */
  history: ReadonlyMap<string, string>;
  /** Tables and views with their columns: names that begin with `_` from `cdc`, others from `analytics`. */
  relations: ReadonlyMap<string, ReadonlySet<string>>;
  /** What the views and rollups were made with, as `madeWith` has it; empty before there are any. */
  madeWith: ReadonlyMap<string, string>;
  /** Stable names that were turned back → the version that they are to show. */
  pins: ReadonlyMap<string, number>;
  /** Rollups that hold all there is; the others are being filled. */
  filled: ReadonlySet<string>;
  /** Views of `analytics` → the last word of their query, which for a stable name is the version it shows. */
  shows: ReadonlyMap<string, string>;
}

/** Makes the two databases and the history. Each statement may run again, and in two runners at once. */
export async function createHistory(client: ClickHouseClient, names: Names): Promise<void> {
  for (const query of statementsOf(HISTORY_TABLE, names)) await client.command({query});
}

/** Begins the name of an entry that holds no file but a version, in the place of the checksum. */
const PIN = 'pins/';
/** The same, of what the views are made with. */
const SETTING = 'settings/';

export const recordApplied = (
  client: ClickHouseClient,
  names: Names,
  {path, sha256}: MigrationFile,
): Promise<void> => record(client, names, path, sha256);

/** The stable name shows this version until told otherwise; with undefined the newest one again. */
export const recordPin = (
  client: ClickHouseClient,
  names: Names,
  name: string,
  version: number | undefined,
): Promise<void> => record(client, names, PIN + name, version?.toString() ?? '');

export async function recordMadeWith(client: ClickHouseClient, names: Names): Promise<void> {
  for (const [name, value] of Object.entries(madeWith(names)))
    await record(client, names, SETTING + name, value);
}

/** What the views that are there are made with, where that is not as it is to be. */
export const madeOtherwise = (
  {madeWith: before}: SchemaState,
  names: Names,
): {name: string; before: string; now: string}[] =>
  Object.entries(madeWith(names)).flatMap(([name, now]) => {
    const then = before.get(name);
    return then === undefined || then === now ? [] : [{name, before: then, now}];
  });

/** Throws `ch.made_otherwise` where it is not. */
export function refuseMadeOtherwise(state: SchemaState, names: Names): void {
  for (const {name, before, now} of madeOtherwise(state, names))
    throw new PipelineError('ch.made_otherwise', `the views are of ${name} ${before}, not of ${now}`);
}

async function record(client: ClickHouseClient, names: Names, file: string, sha256: string): Promise<void> {
  await client.insert({
    table: chName(names.cdc, '_migrations'),
    values: [{file, sha256}],
    columns: ['file', 'sha256'],
    format: 'JSONEachRow',
    clickhouse_settings: {async_insert: 0},
  });
}

/** Four small queries; an empty history when there is none yet. */
export async function readSchemaState(client: ClickHouseClient, names: Names): Promise<SchemaState> {
  const rows = async <T>(query: string): Promise<T[]> => {
    const query_params = {cdc: names.cdc, analytics: names.analytics};
    return await (await client.query({query, query_params, format: 'JSONEachRow'})).json<T>();
  };
  const [relations, views] = await Promise.all([
    rows<{table: string; columns: string[]}>(
      `SELECT table, groupArray(name) AS columns FROM system.columns
       WHERE database = if(startsWith(table, '_'), {cdc: String}, {analytics: String}) GROUP BY table`,
    ),
    rows<{name: string; shows: string}>(
      `SELECT name, extract(as_select, '(\\\\w+)\`?$') AS shows FROM system.tables
       WHERE database = {analytics: String} AND engine = 'View'`,
    ),
  ]);
  const has = (name: string) => relations.some(({table}) => table === name);
  const [history, filled] = await Promise.all([
    has('_migrations')
      ? rows<{file: string; sha256: string}>(
          `SELECT file, sha256 FROM ${chName(names.cdc, '_migrations')} FINAL`,
        )
      : [],
    has('_rollups')
      ? rows<{name: string}>(`SELECT name FROM ${chName(names.cdc, '_rollups')} FINAL WHERE state = 'filled'`)
      : [],
  ]);
  return {
    filled: new Set(filled.map(({name}) => name)),
    history: new Map(
      history
        .filter(({file}) => !file.startsWith(PIN) && !file.startsWith(SETTING))
        .map(row => [row.file, row.sha256]),
    ),
    madeWith: new Map(
      history.flatMap(({file, sha256}) =>
        file.startsWith(SETTING) ? [[file.slice(SETTING.length), sha256]] : [],
      ),
    ),
    pins: new Map(
      history.flatMap(({file, sha256}) =>
        file.startsWith(PIN) && sha256 !== '' ? [[file.slice(PIN.length), Number(sha256)]] : [],
      ),
    ),
    relations: new Map(relations.map(row => [row.table, new Set(row.columns)])),
    shows: new Map(views.map(row => [row.name, row.shows])),
  };
}
