import {readdir, readFile} from 'node:fs/promises';
import {z} from 'zod';
import {PipelineError} from '../cdc/failures.ts';
import {chName, command, rows} from '../cdc/sink/clickhouse.ts';
import {locked, type MigrateOptions, namesOf, pointStableName, wantedVersion} from './migrate.ts';
import {type MigrationFile, readMigrationFiles} from './migration-files.ts';
import {readSchemaState, recordPin, type SchemaState} from './migration-history.ts';

/** A stable name and what stands behind it. */
export interface ViewVersions {
  readonly name: string;
  /** 0 where there is no such view. */
  readonly shows: number;
  /** Those that are there. */
  readonly there: readonly number[];
  /** It was turned back, and does not move to a newer version by itself. */
  readonly isPinned: boolean;
}

/** Every stable name, and the versions of it that are there. */
export async function viewVersions(options: MigrateOptions): Promise<ViewVersions[]> {
  const state = await readSchemaState(options.client, namesOf(options));
  const views = (options.files ?? readMigrationFiles()).filter(({kind}) => kind === 'view');
  return [...new Set(views.map(({name}) => name))].sort().map(name => {
    const versions = views.filter(view => view.name === name);
    return {
      name,
      shows: versions.find(({object}) => state.shows.get(name) === object)?.version ?? 0,
      there: madeOf(versions, state).map(({version}) => version),
      isPinned: state.pins.has(name),
    };
  });
}

const madeOf = (files: readonly MigrationFile[], state: SchemaState): MigrationFile[] =>
  files.filter(({path, object}) => state.history.has(path) && state.relations.has(object));

/**
 * Has the stable name show another version, at once for every reader: the one before what it shows, or `to`. It stays
 * there whatever is applied later, until it is sent to its newest version again. Gives what it shows now. Throws
 * `ch.migration_failed` where there is no such version.
 */
export async function rollBack(options: MigrateOptions, name: string, to?: number): Promise<number> {
  const names = namesOf(options);
  return locked(options, async () => {
    const state = await readSchemaState(options.client, names);
    const views = (options.files ?? readMigrationFiles()).filter(
      file => file.kind === 'view' && file.name === name,
    );
    const shown = views.find(({object}) => state.shows.get(name) === object)?.version ?? 0;
    const there = madeOf(views, state);
    const target = there.findLast(({version}) => (to === undefined ? version < shown : version === to));
    if (!target) {
      const known = there.map(({version}) => version).join(', ') || 'none';
      const wanted = to === undefined ? `no version before ${shown}` : `no version ${to}`;
      throw new PipelineError('ch.migration_failed', `${name} has ${wanted}; there are: ${known}`);
    }
    // Also of those that are not there yet, or not any more: the newest is what a runner would have it show.
    const newest = Math.max(
      ...views.map(({version}) => version),
      wantedVersion(target, {...state, pins: new Map()}),
    );
    // First: a runner that comes in between leaves it alone.
    await recordPin(options.client, names, name, target.version === newest ? undefined : target.version);
    await pointStableName(options.client, names, target);
    return target.version;
  });
}

const DASHBOARDS = new URL('../dashboards/generated/', import.meta.url);

/** Drops a version of a view. Throws `ch.migration_failed` where a stable name, another view or a dashboard reads it. */
export async function dropVersion(options: MigrateOptions, object: string): Promise<void> {
  const {client} = options;
  const names = namesOf(options);
  await locked(options, async () => {
    const state = await readSchemaState(client, names);
    const views = (options.files ?? readMigrationFiles()).filter(({kind}) => kind === 'view');
    if (!madeOf(views, state).some(view => view.object === object))
      throw new PipelineError('ch.migration_failed', `${object} is no version of a view that is there`);
    const readers = [...(await viewsThatRead(options, object)), ...(await dashboardsThatRead(object))];
    if (readers.length > 0)
      throw new PipelineError('ch.migration_failed', `${object} is read by ${readers.join(', ')}`);
    await command(client, `DROP VIEW ${chName(names.analytics, object)} SYNC`);
  });
}

async function viewsThatRead({client, databases}: MigrateOptions, object: string): Promise<string[]> {
  const found = await rows(
    client,
    z.object({reader: z.string()}),
    `SELECT concat(database, '.', name) AS reader FROM system.tables
     WHERE match(as_select, concat('\\\\b\`?', {analytics: String}, '\`?\\\\.\`?', {object: String}, '(?:\\\\W|$)')) AND NOT (database = {analytics: String} AND name = {object: String}) ORDER BY reader`,
    {object, analytics: databases.analytics},
  );
  return found.map(({reader}) => reader);
}

async function dashboardsThatRead(object: string): Promise<string[]> {
  const files = await readdir(DASHBOARDS);
  const texts = await Promise.all(files.map(file => readFile(new URL(file, DASHBOARDS), 'utf8')));
  return files
    .filter((_, i) => new RegExp(`\\b${object}\\b`).test(texts[i]!))
    .map(file => `dashboard ${file}`);
}
