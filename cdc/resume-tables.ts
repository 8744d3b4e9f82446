import type {ClientBase} from 'pg';
import type {Context} from './context.ts';
import type {SchemaChanges} from './schema-changes.ts';
import type {Settings} from './settings/settings.ts';
import {type History, isSetAsideBySink, nameOf, readingSince, showsNewest} from './sink/registry.ts';
import {existingTargets} from './sink/target.ts';
import {describeLocked, tableChooser} from './source/catalog.ts';
import {type Lsn, rowVersion} from './source/lsn.ts';
import {clientConfig, withClient} from './source/postgres.ts';
import type {Preflight} from './source/preflight.ts';
import {compareTables} from './source/schema-change.ts';
import {type Problem, textOf} from './source/table-problems.ts';
import {type TableSchema, tableName, tableSchema, targetName} from './source/table-schema.ts';
import type {TrackedTable} from './source/table-tracker.ts';
import {type CapturedTable, capturedTable, placeProblems, planTable} from './source/tables.ts';

/**
 * Each table as it was captured when the stream stopped: what happened to it since then comes by the stream. Tables
 * that are new, or to be read again, get an empty target, and their changes count from now on; one whose reading was
 * broken off goes on with its own.
 */
export async function resumeTables(
  context: Context,
  changes: SchemaChanges,
  {captured, problems, serverVersion}: Preflight,
  epoch: number,
): Promise<{
  tables: Map<number, TrackedTable>;
  generations: ReadonlyMap<string, number>;
  toRead: number[];
}> {
  const {registry, settings} = context;
  const history = await registry.history();
  const generations = new Map(history.generations);
  const tables = new Map<number, TrackedTable>();
  const wanted = new Map(captured.map(table => [table.schema.name, table]));
  const chosen = tableChooser(settings);
  const targets = await existingTargets(context.client, settings);
  const toRead: number[] = [];
  for (const row of await registry.tables()) {
    const name = nameOf(row);
    const entries = remembered(history, name);
    if (row.state === 'dropped') continue;
    const last = entries?.at(-1)?.table;
    // A reading that a sink's parking came upon is forgotten; what was streamed since then is of no use without it.
    const streams = (row.state === 'streaming' || isSetAsideBySink(row)) && showsNewest(row, history);
    const excluded = !chosen({schema: row.schema_name, table: row.table_name});
    const own = problems.filter(problem => problem.table === name);
    if (excluded || (!streams && !wanted.has(name) && own.length === 0)) {
      const text = excluded ? 'it is excluded now' : 'it is not there any more';
      await changes.apply({
        kind: 'gone',
        version: last ? entries!.at(-1)!.since + 1n : 0n,
        name,
        text,
        table: last,
      });
      continue;
    }
    const reading = last && readingSince(row) !== undefined && wanted.get(name)?.oid === last.oid;
    if (reading && targets.has(targetName(last.schema.definition))) {
      wanted.delete(name);
      // Its target has all that was streamed since then: only what was not read is missing.
      tables.set(last.oid, {history: entries!, parked: false});
      toRead.push(last.oid);
      continue;
    }
    if (streams) wanted.delete(name);
    else if (own.length > 0 && !wanted.has(name))
      await setAside(context, {schema: row.schema_name, table: row.table_name}, own);
    if (!entries || wanted.has(name)) continue;
    const {table} = entries.at(-1)!;
    tables.set(table.oid, {history: entries, parked: !streams});
  }
  // One that has another name only is told of by the stream.
  const apart = [...wanted.values()].filter(({oid}) => !tables.has(oid));
  const tracked = [...tables.values()].filter(({parked}) => !parked);
  const inPlaces = await placed(
    context,
    apart,
    tracked.map(one => one.history.at(-1)!.table.schema),
  );
  await withClient(clientConfig(settings), async postgres => {
    for (const {schema, source} of inPlaces) {
      const found = await asItIs(postgres, settings, serverVersion, source.oid);
      if (!found) continue;
      const generation = (generations.get(schema.name) ?? 0) + 1;
      const table = capturedTable(
        tableSchema({...found.table.schema.definition, generation}),
        found.table.source,
      );
      generations.set(table.schema.name, generation);
      const entry = {since: rowVersion(epoch, found.position, 0), table};
      await changes.prepareTargets([table.schema], {empty: true});
      await registry.saveHistory([
        {...entry, kind: 'read', change: 'it was new, or to be read again', views: []},
      ]);
      await registry.setTables([table.schema], 'snapshot', {reason: 'it is being read'});
      tables.set(source.oid, {history: [entry], parked: false});
      toRead.push(source.oid);
    }
  });
  return {tables, generations, toRead};
}

/** A table as it is while nobody can alter it; undefined where it cannot be captured any more. */
async function asItIs(
  postgres: ClientBase,
  settings: Settings,
  serverVersion: number,
  oid: number,
): Promise<{table: CapturedTable; position: Lsn} | undefined> {
  const {tables, position} = await describeLocked(postgres, settings, serverVersion, [oid]);
  const source = tables[0];
  const plan = source && planTable(source, settings, serverVersion);
  return source && plan?.schema ? {table: capturedTable(plan.schema, source), position} : undefined;
}

/**
 * The tables that no other keeps from their places: of some that share one it is that which was there before, or comes
 * first. The others are set aside.
 */
export async function placed(
  context: Context,
  tables: readonly CapturedTable[],
  tracked: readonly TableSchema[] = [],
): Promise<CapturedTable[]> {
  const {settings, registry} = context;
  const shown = new Set((await registry.tables()).filter(({target}) => target !== '').map(nameOf));
  const ordered = [true, false].flatMap(before =>
    tables.filter(({schema}) => shown.has(schema.name) === before),
  );
  const problems = (others: readonly CapturedTable[]): Problem[] =>
    placeProblems([...tracked, ...others.map(({schema}) => schema)], settings);
  const behind = new Set(problems(ordered).map(({table}) => table));
  const found = ordered.filter(({schema}) => !behind.has(schema.name));
  for (const table of ordered.filter(({schema}) => behind.has(schema.name))) {
    const own = problems([...found, table]).filter(problem => problem.table === table.schema.name);
    if (own.length === 0) found.push(table);
    else await setAside(context, table.source, own);
  }
  return found;
}

/** A table that was captured, or waits to be, and cannot be now. */
async function setAside(
  {registry, log}: Context,
  {schema, table}: {schema: string; table: string},
  problems: readonly Problem[],
): Promise<void> {
  const name = tableName(schema, table);
  const reason = textOf(problems);
  const row = (await registry.tables()).find(candidate => nameOf(candidate) === name);
  if (row?.reason === reason && row.needs_read === 1) return;
  log.error({table: name}, `${name} is parked: ${reason}`);
  await registry.parkAtSource({schema, table}, reason);
}

/** How a table is captured by what is remembered of its name; undefined where nothing is. */
function remembered(history: History, name: string): TrackedTable['history'] | undefined {
  let found: TrackedTable['history'] | undefined;
  for (const entries of history.byOid.values()) {
    const last = entries.at(-1)!;
    if (last.table.schema.name !== name || (found && found.at(-1)!.since > last.since)) continue;
    // Rows from before a renaming belong to a table that is not there any more.
    found = entries.filter(({table}) => table.schema.name === name);
  }
  return found;
}

/** The same table as it is now, to be read into its target again, or into one of its own where it became another. */
export function inTarget(now: CapturedTable, history: History): CapturedTable {
  const last = remembered(history, now.schema.name)?.at(-1)?.table;
  const circumstances = {rewritten: false, late: false};
  if (last && last.oid === now.oid && compareTables(last, now, circumstances).kind === 'none') {
    return capturedTable(last.schema, now.source);
  }
  const generation = (history.generations.get(now.schema.name) ?? 0) + 1;
  return capturedTable(tableSchema({...now.schema.definition, generation}), now.source);
}
