import type {ClickHouseClient} from '@clickhouse/client';
import {PipelineError} from '../cdc/failures.ts';
import {asTargetError, chLiteral, chName} from '../cdc/sink/clickhouse.ts';
import {type Lock, takeLock} from './lock.ts';
import {
  type MigrationFile,
  type Names,
  readMigrationFiles,
  rollupStatements,
  statementsOf,
} from './migration-files.ts';
import {
  createHistory,
  madeOtherwise,
  readSchemaState,
  recordApplied,
  recordMadeWith,
  refuseMadeOtherwise,
  type SchemaState,
} from './migration-history.ts';
import {createBeside, tablesOf} from './rollup-tables.ts';

const GIVE_UP_AFTER_MS = 60_000;

export interface MigrateOptions {
  client: ClickHouseClient;
  databases: Omit<Names, 'cluster'>;
  /** Name after ON CLUSTER; history and lock stay with the node (or replicated database) of `client`. */
  onCluster?: string;
  log?: (line: string) => void;
  /** Default: the files of this release. */
  files?: readonly MigrationFile[];
  /** May what is of another time zone go, to be made and filled anew? */
  changeMadeWith?: boolean;
}

export interface Waiting {
  file: string;
  /** 'orders' where the table is missing, 'orders.country' where only a column is, '_sales_days_v1, filled' where a rollup is not full. */
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
 * 'ch.made_otherwise' when what is there is of another time zone or currency, 'ch.migration_failed' when ClickHouse
 * refuses a statement, 'ch.migration_locked' when another runner has been at work for a minute, and what the client
 * throws as `asTargetError` names it.
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
  const look = async () => {
    const state = await readSchemaState(client, names);
    refuseMadeOtherwise(state, names);
    return refuseChanged(planMigration(files, state));
  };

  const applied: string[] = [];
  if (options.changeMadeWith) await dropMadeOtherwise(options, files);
  let plan = await look();
  if (plan.ready.length > 0) {
    await createHistory(client, names);
    await locked(options, async lock => {
      plan = await look(); // Another runner may have been quicker.
      await recordMadeWith(client, names);
      for (const file of plan.ready) {
        await lock.alive();
        await applyFile({...options, files}, names, file);
        applied.push(file.path);
      }
    });
  }
  return {applied, present: plan.present, waiting: plan.waiting};
}

/**
 * Days of two time zones must not stand in one table, nor amounts of two currencies: what is of another one goes, and
 * the views are away until what they read is filled anew.
 */
async function dropMadeOtherwise(options: MigrateOptions, files: readonly MigrationFile[]): Promise<void> {
  const {client, log} = options;
  const names = namesOf(options);
  const changed = madeOtherwise(await readSchemaState(client, names), names);
  if (changed.length === 0) return;
  for (const {name, before, now} of changed)
    log?.(`${name} was ${before} and is ${now}: what depends on it is made and filled anew`);
  const gone = new Set<string>();
  // Rollups are of views, and views of rollups.
  for (let before = -1; gone.size > before; ) {
    before = gone.size;
    for (const {object, text, requires, rollup} of files) {
      const parents = [...requires, ...(rollup?.parents ?? [])];
      if (changed.some(({name}) => text.includes(`{${name}}`)) || parents.some(({name}) => gone.has(name)))
        gone.add(object);
    }
  }
  await locked(options, async () => {
    const {shows, relations} = await readSchemaState(client, names);
    const own = (kind: MigrationFile['kind']): MigrationFile[] =>
      files
        .filter(file => file.kind === kind && gone.has(file.object) && relations.has(file.object))
        .toReversed();
    for (const {name, object} of own('view'))
      for (const view of shows.get(name) === object ? [name, object] : [object])
        await client.command({query: `DROP VIEW IF EXISTS ${chName(names.analytics, view)} SYNC`});
    for (const {object} of own('rollup')) {
      await client.insert({
        table: chName(names.cdc, '_rollups'),
        values: [{name: object, state: 'filling'}],
        format: 'JSONEachRow',
      });
      for (const table of tablesOf(object))
        await client.command({query: `DROP TABLE IF EXISTS ${chName(names.cdc, table)} SYNC`});
    }
    await recordMadeWith(client, names);
  });
}

/** Does the work while no other runner is at it. Throws `ch.migration_locked` where one is for a minute. */
export async function locked<T>(options: MigrateOptions, work: (lock: Lock) => Promise<T>): Promise<T> {
  const {client, log} = options;
  // Before each file a runner says that it lives, and no file takes half a minute.
  const lock = await takeLock(client, namesOf(options), 'migration', {
    patienceMs: GIVE_UP_AFTER_MS,
    onWait: () => log?.('another runner is migrating; waiting for it'),
  });
  if (!lock) throw new PipelineError('ch.migration_locked', 'another runner has been migrating for a minute');
  try {
    return await work(lock);
  } finally {
    // Where this fails too, the lock runs out by itself and the first error is the one to report.
    await lock.release().catch(() => {});
  }
}

/** What `migrate` would do now; changes nothing and refuses nothing. */
export async function migrationStatus(
  options: MigrateOptions,
): Promise<{present: string[]; ready: string[]; waiting: Waiting[]; changed: string[]}> {
  const state = await readSchemaState(options.client, namesOf(options));
  const plan = planMigration(options.files ?? readMigrationFiles(), state);
  return {...plan, ready: plan.ready.map(file => file.path)};
}

export const namesOf = ({databases, onCluster}: MigrateOptions): Names => ({
  ...databases,
  cluster: onCluster,
});

/**
 * Sorts files, which come in the order of their requirements, by what the server has. Of each name only the
 * highest version is made again when it vanished. A view over a rollup waits until that is full, so that nobody reads half of
 * it; one that rollups are filled by is made before, and its stable name goes on showing the version before.
 */
export function planMigration(files: readonly MigrationFile[], state: SchemaState): MigrationPlan {
  const plan: MigrationPlan = {present: [], ready: [], waiting: [], changed: []};
  const coming = new Set<string>();
  const blocked = new Map<string, string[]>();
  const unfilled = unfilledBehind(files, state);
  const filledBy = new Set(
    files.flatMap(({kind, requires}) => (kind === 'rollup' ? requires.map(({name}) => name) : [])),
  );
  for (const {object, requires} of files.toReversed())
    if (filledBy.has(object)) for (const {name} of requires) filledBy.add(name);
  for (const file of files) {
    const recorded = state.history.get(file.path);
    const missing = file.requires.flatMap(({name, columns}) => {
      const found = state.relations.get(name);
      if (found) return columns.filter(column => !found.has(column)).map(column => `${name}.${column}`);
      return coming.has(name) ? [] : (blocked.get(name) ?? [name]);
    });
    const isMadeFirst = filledBy.has(file.object) && !state.relations.has(file.object);
    if (file.kind === 'view' && !isMadeFirst)
      missing.push(...unfilled.get(file.object)!.map(name => `${name}, filled`));
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

/** Object → rollups that it reads, itself or by others, and that are still being filled. */
function unfilledBehind(files: readonly MigrationFile[], state: SchemaState): Map<string, string[]> {
  const unfilled = new Map<string, string[]>();
  for (const {kind, object, requires} of files) {
    const own = kind === 'rollup' && !state.filled.has(object) ? [object] : [];
    unfilled.set(object, [...new Set([...requires.flatMap(({name}) => unfilled.get(name) ?? []), ...own])]);
  }
  return unfilled;
}

function isInPlace(file: MigrationFile, state: SchemaState): boolean {
  const isWanted = wantedVersion(file, state) === file.version;
  if (!state.relations.has(file.object)) return !isWanted;
  return file.kind !== 'view' || !isWanted || state.shows.get(file.name) === file.object;
}

/** What the stable name is to show. Counts versions of other releases too: an older release must not turn a name back. */
export function wantedVersion(file: MigrationFile, state: SchemaState): number {
  const pattern = new RegExp(`^${file.kind}s/${file.name}\\.v(\\d+)\\.sql$`);
  const applied = [...state.history.keys()].map(path => Number(pattern.exec(path)?.[1] ?? 0));
  return state.pins.get(file.name) ?? Math.max(file.version, ...applied);
}

function refuseChanged(plan: MigrationPlan): MigrationPlan {
  if (plan.changed.length === 0) return plan;
  const files = plan.changed.join(', ');
  throw new PipelineError('ch.migration_changed', `${files} was edited after it had been applied`);
}

async function applyFile(
  options: MigrateOptions & {files: readonly MigrationFile[]},
  names: Names,
  file: MigrationFile,
): Promise<void> {
  const {client, log, files} = options;
  try {
    const {create} = file.rollup
      ? rollupStatements(file.text, names)
      : {create: statementsOf(file.text, names)};
    for (const query of create) await client.command({query});
    if (file.rollup) await createBeside(client, names, file.object, file.rollup);
    if (file.kind === 'view') {
      // A view with a column list is taken as it is, and a mistake in it would show to its first reader.
      await client.command({query: `EXPLAIN SELECT * FROM ${chName(names.analytics, file.object)}`});
      const state = await readSchemaState(client, names);
      const isFull = unfilledBehind(files, state).get(file.object)!.length === 0;
      if (isFull && wantedVersion(file, state) === file.version) await pointStableName(client, names, file);
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

/** Makes `<name>` show this version. Replacing a view fails no reader. */
export async function pointStableName(
  client: ClickHouseClient,
  names: Names,
  file: MigrationFile,
): Promise<void> {
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
