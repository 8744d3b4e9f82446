import {oneLine, oneLineSql} from '../observe/one-line.ts';
import type {Settings} from '../settings/settings.ts';
import type {CatalogTable} from './catalog.ts';
import {pgName, type TableSchema, tableName, targetName, viewName} from './table-schema.ts';

/** Something that keeps a table, or everything, from being captured, and the SQL that mends it. */
export interface Problem {
  readonly message: string;
  readonly sql?: string;
  /** 'schema.table', where it keeps no more than this one from being captured. */
  readonly table?: string;
  /** A pipeline that runs already can live with it: its last table may be dropped, and made again a moment later. */
  readonly onlyAtFirst?: true;
}

/** In one line: what is wrong, and the SQL that mends it. */
export const textOf = (problems: readonly Problem[]): string =>
  problems.map(({message, sql}) => (sql ? `${message}: ${sql}` : message)).join('; ');

/** The columns by which a deletion names its row. */
export const keyOf = (table: CatalogTable): string[] | null =>
  table.identity === 'i' ? table.identityIndex : table.primaryKey;

/** What keeps one table from being captured. */
export function problemsOf(table: CatalogTable, settings: Settings, unpublished: boolean): Problem[] {
  const name = tableName(table.schema, table.table);
  const sql = pgName(table.schema, table.table);
  const problems: Problem[] = [];
  const role = 'the role of FRESHET_PG_URL';
  if (!table.mayRead)
    problems.push({
      message: `${name}: ${role} may not read it`,
      sql: `GRANT USAGE ON SCHEMA ${pgName(table.schema)} TO <role>; GRANT SELECT ON ${sql} TO <role>;`,
    });
  if (table.rowSecurity) {
    problems.push({
      message: `${name}: row security hides rows from ${role}`,
      sql: 'ALTER ROLE <role> BYPASSRLS;',
    });
  }
  if (unpublished) {
    problems.push({
      message: `${name}: it is not in the publication`,
      sql: `ALTER PUBLICATION ${pgName(settings.FRESHET_PUBLICATION)} ADD TABLE ${sql};`,
    });
  }
  const indexGone = table.identity === 'i' && !table.identityIndex; // it then works as NOTHING does
  if (table.identity === 'n' || indexGone) {
    problems.push({
      message: `${name}: with REPLICA IDENTITY ${indexGone ? 'on an index that is gone' : 'NOTHING'} a deletion does not say which row`,
      sql: `ALTER TABLE ${sql} REPLICA IDENTITY DEFAULT;`,
    });
  } else if (!keyOf(table)) {
    problems.push({
      message: `${name}: it has no primary key, so its rows cannot be told apart`,
      sql: `ALTER TABLE ${sql} ADD PRIMARY KEY (<columns>);`,
    });
  } else if (table.identity !== 'i' && table.primaryKeyDeferrable) {
    problems.push({
      message: `${name}: its primary key is DEFERRABLE, so two rows may hold one key within a transaction`,
      sql: `ALTER TABLE ${sql} DROP CONSTRAINT ${pgName(table.primaryKeyName ?? '')}, ADD PRIMARY KEY (${keyOf(
        table,
      )!
        .map(key => pgName(key))
        .join(', ')});`,
    });
  }
  problems.push(...table.leaves.flatMap(leaf => leafProblem(table, leaf) ?? []));
  for (const {name: own} of table.columns) {
    if (TAKEN.has(own)) problems.push({message: `${name}: ${own} is the name of a technical column`});
    if (RESERVED.has(own))
      problems.push({message: `${name}: ${own} is a name that ClickHouse keeps for itself`});
  }
  return problems;
}

/** A partition whose changes do not come, or do not say which row of the root they are about. */
function leafProblem(root: CatalogTable, leaf: CatalogTable['leaves'][number]): Problem | undefined {
  const name = `${tableName(root.schema, root.table)}: its partition ${tableName(leaf.schema, leaf.table)}`;
  const sql = `ALTER TABLE ${pgName(leaf.schema, leaf.table)}`;
  if (!leaf.logged) {
    return {message: `${name} is unlogged: nobody is told of its changes`, sql: `${sql} SET LOGGED;`};
  }
  // A root's identity is not that of its partitions, neither of those that are there nor of later ones. A foreign
  // table has none.
  const lacks = keyOf(root)?.filter(key => leaf.identity && !leaf.identity.includes(key)) ?? [];
  if (lacks.length === 0) return undefined;
  return {
    message: `${name} has a REPLICA IDENTITY of its own, and a deletion does not say ${lacks.join(', ')} of the key`,
    sql: `${sql} REPLICA IDENTITY ${root.identity === 'i' ? 'USING INDEX <its index of the key>' : 'DEFAULT'};`,
  };
}

/** Names of the columns behind those of the source. */
const TAKEN: ReadonlySet<string> = new Set(['_version', '_is_deleted', '_commit_ts', '_ingested_at']);
/** Columns that ClickHouse stores in every MergeTree; names of columns that it makes while it reads can be had. */
const RESERVED: ReadonlySet<string> = new Set(['_row_exists', '_block_number', '_block_offset']);

/** What keeps a table's rows from being stored in ClickHouse, though each of its types has a place there. */
export function storageProblems({name, definition, columns}: TableSchema, settings: Settings): Problem[] {
  const problems: Problem[] = [];
  // Its index then leaves out rows that are there: even `WHERE key = [1]` would not find them.
  for (const column of columns.filter(({inKey, type}) => inKey && type.array)) {
    problems.push({
      message: `${name}: ${column.name} of its key is an array, and ClickHouse does not find rows by a key whose parts may be NULL`,
      sql: `ALTER TABLE ${pgName(definition.schema, definition.table)} REPLICA IDENTITY USING INDEX <a unique index of other columns>;`,
    });
  }
  const places = [
    ['target', settings.FRESHET_CLICKHOUSE_DATABASE, targetName({...definition, generation: 1}), GENERATION],
    ['view', settings.FRESHET_ANALYTICS_DATABASE, viewName(settings, definition), 0],
  ] as const;
  for (const [what, database, place, more] of places) {
    const length = fileNameLength(place) + more;
    const longest = LONGEST_FILE_NAME - fileNameLength(database);
    if (length > longest) {
      problems.push({
        message: `${name}: the name of its ${what} is too long for ClickHouse: ${length} bytes in the name of a file, of ${longest} that database ${database} leaves; a byte of any character but A-Z, a-z, 0-9 and _ takes three`,
      });
    }
  }
  return problems;
}

/** Of 255 bytes ClickHouse keeps these from the names of database and table, for the file of a dropped table. */
const LONGEST_FILE_NAME = 255 - 42;
/** Room for `__2` to `__9999`: targets that the table is read into again. */
const GENERATION = 6;
const fileNameLength = (name: string): number =>
  [...Buffer.from(name)].reduce((sum, byte) => sum + (/\w/.test(String.fromCharCode(byte)) ? 1 : 3), 0);

/** Names are anybody's: none of them makes a line of its own, or moves the cursor. */
export const readable = (problems: readonly Problem[]): Problem[] =>
  problems.map(({sql, ...problem}) => ({
    ...problem,
    message: oneLine(problem.message),
    ...(sql !== undefined && {sql: oneLineSql(sql)}),
  }));

/** Two tables whose rows would land in one place. */
export function collisions(
  tables: readonly TableSchema[],
  what: string,
  placesOf: (table: TableSchema) => readonly string[],
): Problem[] {
  const taken = new Map<string, TableSchema>();
  return tables.flatMap(table => {
    for (const place of placesOf(table)) {
      const other = taken.get(place);
      taken.set(place, table);
      if (other === undefined || quoted(other) === quoted(table)) continue;
      const called = other.name === table.name ? quoted : ({name}: TableSchema) => name;
      return [
        {
          table: table.name,
          message: `${called(table)} and ${called(other)} would share the ${what} ${place}`,
        },
      ];
    }
    return [];
  });
}

const quoted = ({definition: {schema, table}}: TableSchema): string => pgName(schema, table);
