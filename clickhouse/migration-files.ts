import {createHash} from 'node:crypto';
import {readdirSync, readFileSync} from 'node:fs';
import {PipelineError} from '../cdc/failures.ts';
import {chName} from '../cdc/sink/clickhouse.ts';

/** What stands behind the placeholders of the SQL files. `cluster` is the name after ON CLUSTER. */
export interface Names {
  cdc: string;
  analytics: string;
  /** Of the business; default UTC. */
  timeZone?: string;
  /** Of the business; default GBP. */
  currency?: string;
  cluster?: string | undefined;
}

export interface MigrationFile {
  /** Path below clickhouse/, such as 'views/customer_metrics.v1.sql'. */
  path: string;
  kind: (typeof FOLDERS)[keyof typeof FOLDERS];
  /** Stable name. A view's versions are called `<name>_v<version>`, a rollup's `_<name>_v<version>`; a table keeps its name. */
  name: string;
  version: number;
  /** The object that the file makes. */
  object: string;
  /** Of the text with \n line ends, placeholders in place. */
  sha256: string;
  what: string;
  /** Tables or views that must exist first, each with the columns that it must have. */
  requires: {name: string; columns: string[]}[];
  text: string;
  /** Of a rollup alone. */
  rollup: RollupRules | undefined;
}

/** How a rollup is kept up to date; cdc/rollups/ does it. */
export interface RollupRules {
  /** Columns whose rows are computed together. */
  bucket: readonly string[];
  /** What it is computed from, and in that the expressions that tell which buckets a written row touches. */
  parents: readonly {name: string; expressions: readonly string[]}[];
  /** Is what stays the same not written again? */
  isCompared: boolean;
  /** Is of what is not the same both kept, as it was and as it is, for those who go on from what changed? */
  keepsImages: boolean;
}

const FOLDERS = {tables: 'table', rollups: 'rollup', views: 'view'} as const;
const OBJECT = {
  table: (name: string) => name,
  rollup: (name: string, version: string) => `_${name}_v${version}`,
  view: (name: string, version: string) => `${name}_v${version}`,
} as const;

/** All versioned files, each after the ones that it requires. Throws when a header is missing. */
export function readMigrationFiles(root: URL = new URL('./', import.meta.url)): MigrationFile[] {
  const files = Object.entries(FOLDERS).flatMap(([folder, kind]) =>
    readdirSync(new URL(`${folder}/`, root))
      .filter(name => name.endsWith('.sql'))
      .map(name => `${folder}/${name}`)
      .map(path => parseMigrationFile(kind, path, readFileSync(new URL(path, root), 'utf8'))),
  );
  return orderByRequirement(files);
}

/** Versions of one name in order, and each file after those whose objects it requires. */
export function orderByRequirement(files: readonly MigrationFile[]): MigrationFile[] {
  const ordered = new Set<MigrationFile>();
  const add = (file: MigrationFile): void => {
    if (ordered.has(file)) return;
    for (const {name} of file.requires) files.filter(other => other.object === name).forEach(add);
    ordered.add(file);
  };
  [...files].sort((a, b) => a.version - b.version || (a.path < b.path ? -1 : 1)).forEach(add);
  return [...ordered];
}

/**
 * Header lines are `-- version:`, `-- what:`, `-- requires: orders(id, status), order_facts_v1`, `-- changed:`; a rollup
 * has `-- bucket: day` and `-- from: orders(id), _sales_slots_v1(toDate(slot))` too, and may have `-- compared: yes`, or
 * `-- images: kept`, which has it compared as well.
 * Throws PipelineError 'ch.migration_failed' when the header and the file name disagree.
 */
export function parseMigrationFile(kind: MigrationFile['kind'], path: string, raw: string): MigrationFile {
  const text = raw.replaceAll('\r\n', '\n');
  const header = (key: string) => new RegExp(`^-- ${key}: (.+)$`, 'm').exec(text)?.[1]?.trim();
  const [, name, digits] = /^\w+\/(\w+)\.v(\d+)\.sql$/.exec(path) ?? [];
  const what = header('what');
  if (!name || !digits || header('version') !== digits || !what || !header('changed')) {
    throw new PipelineError(
      'ch.migration_failed',
      `${path}: a file is called <name>.v<number>.sql and begins with the lines -- version:, -- what: and -- changed:`,
    );
  }
  const required = [...(header('requires') ?? '').matchAll(/(\w+)(?:\(([^)]*)\))?/g)];
  const rollup = kind === 'rollup' ? parseRules(path, header) : undefined;
  return {
    path,
    kind,
    name,
    version: Number(digits),
    object: OBJECT[kind](name, digits),
    sha256: createHash('sha256').update(text).digest('hex'),
    what,
    requires: [
      ...required.map(([, table, columns]) => ({name: table!, columns: columns?.match(/\w+/g) ?? []})),
      ...(rollup?.parents ?? []).map(parent => ({name: parent.name, columns: []})),
    ],
    text,
    rollup,
  };
}

function parseRules(path: string, header: (key: string) => string | undefined): RollupRules {
  const [bucket, from] = [header('bucket') ?? '', header('from') ?? ''];
  const parents = listed(from).map(parent => /^(\w+)\((.+)\)$/.exec(parent) ?? []);
  if (bucket === '' || parents.length === 0 || parents.some(([, name]) => name === undefined)) {
    throw new PipelineError('ch.migration_failed', `${path}: a rollup has the lines -- bucket: and -- from:`);
  }
  return {
    bucket: bucket.split(',').map(column => column.trim()),
    isCompared: header('compared') === 'yes' || header('images') === 'kept',
    keepsImages: header('images') === 'kept',
    parents: parents.map(([, name, expressions]) => ({
      name: name!,
      expressions: listed(expressions!),
    })),
  };
}

/** What stands between commas that are in no brackets and no quotes. */
function listed(text: string): string[] {
  const found = [''];
  let depth = 0;
  for (const [part] of text.matchAll(/'[^']*'|./g)) {
    if (part === '(') depth += 1;
    if (part === ')') depth -= 1;
    if (part === ',' && depth === 0) found.push('');
    else found[found.length - 1] += part;
  }
  return found.map(one => one.trim()).filter(one => one !== '');
}

/** Behind a rollup's own columns: the newest run's row of a key counts. */
const RUN_COLUMNS = `_run UInt64 COMMENT 'number of the run that wrote it',
  _is_deleted UInt8 COMMENT '1: there is no such row any more',
  INDEX run _run TYPE minmax GRANULARITY 1`;

/** Puts the names in and cuts the text into statements, each ended by a `;` at the end of a line. */
export function statementsOf(text: string, names: Names): string[] {
  return filledIn(text.replaceAll(/^\s*--.*$/gm, ''), names)
    .split(/;\s*$/m)
    .map(statement => statement.trim())
    .filter(statement => statement !== '');
}

/** What a rollup's file has: how its table is made, its query, and where it has one, what comes to the same from what changed. */
export function rollupStatements(
  text: string,
  names: Names,
): {create: string[]; query: string; increment: string | undefined} {
  const statements = statementsOf(text, names);
  const create = statements.filter(statement => statement.startsWith('CREATE'));
  const [query, increment] = statements.slice(create.length);
  return {create, query: query!, increment};
}

/** What days and amounts in the views are of, by placeholder: of two of them they must not stand in one table. */
export const madeWith = ({timeZone, currency}: Names): Record<'time_zone' | 'currency', string> => ({
  time_zone: (timeZone ?? 'UTC').replaceAll(/['\\]/g, ''),
  currency: (currency ?? 'GBP').replaceAll(/['\\]/g, ''),
});

/** The text with names in the places of the placeholders. */
export function filledIn(text: string, names: Names): string {
  const values: Record<string, string> = {
    cdc: chName(names.cdc),
    analytics: chName(names.analytics),
    on_cluster: names.cluster ? `ON CLUSTER ${chName(names.cluster)}` : '',
    ...madeWith(names),
    run: RUN_COLUMNS,
  };
  return text.replaceAll(
    /\{(cdc|analytics|on_cluster|time_zone|currency|run)\}/g,
    (_, key: string) => values[key]!,
  );
}
