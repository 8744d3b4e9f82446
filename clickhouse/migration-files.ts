import {createHash} from 'node:crypto';
import {readdirSync, readFileSync} from 'node:fs';
import {PipelineError} from '../cdc/failures.ts';
import {chName} from '../cdc/sink/clickhouse.ts';

/** What stands behind the placeholders of the SQL files. `cluster` is the name after ON CLUSTER. */
export interface Names {
  cdc: string;
  analytics: string;
  cluster?: string | undefined;
}

export interface MigrationFile {
  /** Path below clickhouse/, such as 'views/customer_metrics.v1.sql'. */
  path: string;
  kind: 'table' | 'view';
  /** Stable name. A view's versions are called `<name>_v<version>`, a table keeps its name. */
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
}

const FOLDERS = {tables: 'table', views: 'view'} as const;

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
 * Header lines are `-- version:`, `-- what:`, `-- requires: orders(id, status), order_facts_v1`, `-- changed:`.
 * Throws PipelineError 'ch.migration_failed' when the header and the file name disagree.
 */
export function parseMigrationFile(kind: 'table' | 'view', path: string, raw: string): MigrationFile {
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
  return {
    path,
    kind,
    name,
    version: Number(digits),
    object: kind === 'view' ? `${name}_v${digits}` : name,
    sha256: createHash('sha256').update(text).digest('hex'),
    what,
    requires: required.map(([, table, columns]) => ({name: table!, columns: columns?.match(/\w+/g) ?? []})),
    text,
  };
}

/** Puts the names in and cuts the text into statements, each ended by a `;` at the end of a line. */
export function statementsOf(text: string, names: Names): string[] {
  const values: Record<string, string> = {
    cdc: chName(names.cdc),
    analytics: chName(names.analytics),
    on_cluster: names.cluster ? `ON CLUSTER ${chName(names.cluster)}` : '',
  };
  return text
    .replaceAll(/^\s*--.*$/gm, '')
    .replaceAll(/\{(cdc|analytics|on_cluster)\}/g, (_, key: string) => values[key]!)
    .split(/;\s*$/m)
    .map(statement => statement.trim())
    .filter(statement => statement !== '');
}
