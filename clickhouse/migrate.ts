import type {ClickHouseClient} from '@clickhouse/client';
import {PipelineError} from '../cdc/failures.ts';
import {asTargetError, chLiteral, chName} from '../cdc/sink/clickhouse.ts';
import {type MigrationFile, type Names, readMigrationFiles, statementsOf} from './migration-files.ts';
import {createHistory, readSchemaState, recordApplied, type SchemaState} from './migration-history.ts';
import {takeMigrationLock} from './migration-lock.ts';

export interface MigrateOptions {
  client: ClickHouseClient;
  databases: {cdc: string; analytics: string};
  /** Name after ON CLUSTER; history and lock stay with the node (or replicated database) of `client`. */
  onCluster?: string;
  log?: (line: string) => void;
  /** Default: the files of this release. */
  files?: readonly MigrationFile[];
}

export interface Waiting {
  file: string;
  /** 'orders' where the table is missing, 'orders.country' where only a column is. */
  missing: string[];
}

export interface MigrationPlan {
  present: string[];
  ready: MigrationFile[];
  waiting: Waiting[];
  /** Applied, and edited since. */
  changed: string[];
}

/**
 * Applies everything whose requirements exist, and points each stable name at its highest applied version.
 * Says what was applied, what was there, and what waits for which tables. Safe to run twice and at once; three
 * small queries when there is nothing to do.
 *
 * Throws PipelineError 'ch.migration_changed' when an applied file was edited (nothing is applied then),
 * 'ch.migration_failed' when ClickHouse refuses a statement, 'ch.migration_locked' when another runner has been
 * at work for a minute, and what the client throws as `asTargetError` names it.
 */
export async function migrate(
  options: MigrateOptions,
): Promise<{applied: string[]; present: string[]; waiting: Waiting[]}> {
  try {
    return await applyReady(options);
  } catch (error) {
    throw asTargetError(error);
  }
}

async function applyReady(
  options: MigrateOptions,
): Promise<{applied: string[]; present: string[]; waiting: Waiting[]}> {
  const {client} = options;
  const names = namesOf(options);
  const files = options.files ?? readMigrationFiles();
  const look = async () => refuseChanged(planMigration(files, await readSchemaState(client, names)));

  const applied: string[] = [];
  let plan = await look();
  if (plan.ready.length > 0) {
    await createHistory(client, names);
    const lock = await takeMigrationLock(client, names, options.log);
    try {
      plan = await look(); // Another runner may have been quicker.
      for (const file of plan.ready) {
        await lock.alive();
        await applyFile(options, names, file);
        applied.push(file.path);
      }
    } finally {
      // Where this fails too, the lock runs out by itself and the first error is the one to report.
      await lock.release().catch(() => {});
    }
  }
  return {applied, present: plan.present, waiting: plan.waiting};
}

/** What `migrate` would do now; changes nothing and refuses nothing. */
export async function migrationStatus(
  options: MigrateOptions,
): Promise<{present: string[]; ready: string[]; waiting: Waiting[]; changed: string[]}> {
  const state = await readSchemaState(options.client, namesOf(options));
  const plan = planMigration(options.files ?? readMigrationFiles(), state);
  return {...plan, ready: plan.ready.map(file => file.path)};
}

const namesOf = ({databases, onCluster}: MigrateOptions): Names => ({...databases, cluster: onCluster});

/**
 * Sorts files, which come in the order of their requirements, by what the server has. Of each name only the
 * highest version is made again when it vanished.
 */
export function planMigration(files: readonly MigrationFile[], state: SchemaState): MigrationPlan {
  const plan: MigrationPlan = {present: [], ready: [], waiting: [], changed: []};
  const coming = new Set<string>();
  const blocked = new Map<string, string[]>();
  for (const file of files) {
    const recorded = state.history.get(file.path);
    const missing = file.requires.flatMap(({name, columns}) => {
      const found = state.relations.get(name);
      if (found) return columns.filter(column => !found.has(column)).map(column => `${name}.${column}`);
      return coming.has(name) ? [] : (blocked.get(name) ?? [name]);
    });
    if (recorded !== undefined && recorded !== file.sha256) {
      plan.changed.push(file.path);
    } else if (recorded !== undefined && isInPlace(file, state)) {
      plan.present.push(file.path);
    } else if (missing.length > 0) {
      blocked.set(file.object, missing);
      plan.waiting.push({file: file.path, missing: [...new Set(missing)]});
    } else {
      coming.add(file.object);
      plan.ready.push(file);
    }
  }
  return plan;
}

function isInPlace(file: MigrationFile, state: SchemaState): boolean {
  if (highestApplied(file, state) > file.version) return true;
  return (
    state.relations.has(file.object) && (file.kind === 'table' || state.shows.get(file.name) === file.object)
  );
}

/** Counts versions of other releases too: an older release must not turn a stable name back. */
function highestApplied(file: MigrationFile, state: SchemaState): number {
  const pattern = new RegExp(`^\\w+/${file.name}\\.v(\\d+)\\.sql$`);
  return Math.max(0, ...[...state.history.keys()].map(path => Number(pattern.exec(path)?.[1] ?? 0)));
}

function refuseChanged(plan: MigrationPlan): MigrationPlan {
  if (plan.changed.length === 0) return plan;
  const files = plan.changed.join(', ');
  throw new PipelineError('ch.migration_changed', `${files} was edited after it had been applied`);
}

async function applyFile(options: MigrateOptions, names: Names, file: MigrationFile): Promise<void> {
  const {client, log} = options;
  try {
    for (const query of statementsOf(file.text, names)) await client.command({query});
    if (file.kind === 'view') {
      // A view with a column list is taken as it is, and a mistake in it would show to its first reader.
      await client.command({query: `EXPLAIN SELECT * FROM ${chName(names.analytics, file.object)}`});
      await pointStableName(client, names, file);
    }
    await recordApplied(client, names, file);
  } catch (error) {
    const failure = asTargetError(error);
    // A server that is away, full or refuses the user says nothing about the file.
    if (failure.reaction === 'retry' || failure.code === 'ch.auth') throw failure;
    throw new PipelineError('ch.migration_failed', `${file.path}: ${failure.message}`, {cause: error});
  }
  log?.(`applied ${file.path}: ${file.what}`);
}

/** Makes `<name>` show this version unless a higher one was applied. Replacing a view fails no reader. */
async function pointStableName(client: ClickHouseClient, names: Names, file: MigrationFile): Promise<void> {
  if (highestApplied(file, await readSchemaState(client, names)) > file.version) return;
  const described = await client.query({
    query: `SELECT name, type, comment, (SELECT comment FROM system.tables
        WHERE database = {database: String} AND name = {object: String}) AS view_comment
      FROM system.columns WHERE database = {database: String} AND table = {object: String} ORDER BY position`,
    query_params: {database: names.analytics, object: file.object},
    format: 'JSONEachRow',
  });
  const columns = await described.json<{name: string; type: string; comment: string; view_comment: string}>();
  // Columns are spelled out, because a view over * has no comments of its own.
  const list = columns.map(
    ({name, type, comment}) => `${chName(name)} ${type} COMMENT ${chLiteral(comment)}`,
  );
  const database = chName(names.analytics);
  const statements = statementsOf(
    `CREATE OR REPLACE VIEW ${database}.${chName(file.name)} {on_cluster} (${list.join(', ')})
     SQL SECURITY DEFINER AS SELECT * FROM ${database}.${chName(file.object)}
     COMMENT ${chLiteral(columns[0]?.view_comment ?? '')}`,
    names,
  );
  for (const query of statements) await client.command({query});
}
