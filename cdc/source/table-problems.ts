import type {Settings} from '../settings/settings.ts';
import type {CatalogTable} from './catalog.ts';
import {pgName, type TableSchema, tableName} from './table-schema.ts';

/** Something that keeps a table, or everything, from being captured, and the SQL that mends it. */
export interface Problem {
  readonly message: string;
  readonly sql?: string;
}

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
  for (const column of table.columns.filter(({name: own}) =>
    /^_(version|is_deleted|commit_ts|ingested_at)$/.test(own),
  )) {
    problems.push({message: `${name}: ${column.name} is the name of a technical column`});
  }
  return problems;
}

/** Two tables whose rows would land in one place. */
export function collisions(
  tables: readonly TableSchema[],
  what: string,
  nameIn: (table: TableSchema) => string,
): Problem[] {
  const taken = new Map<string, string>();
  return tables.flatMap(table => {
    const place = nameIn(table);
    const other = taken.get(place);
    taken.set(place, table.name);
    return other === undefined
      ? []
      : [{message: `${table.name} and ${other} would share the ${what} ${place}`}];
  });
}
