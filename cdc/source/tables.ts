import type {ClientBase} from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type CatalogTable, readCatalog} from './catalog.ts';
import {pgName, type TableDefinition, type TableSchema, tableName, tableSchema} from './table-schema.ts';

/** A table that is captured, with what only the source needs to know of it. */
export interface CapturedTable {
  readonly schema: TableSchema;
  readonly oid: number;
  /** A partitioned root is read with its partitions; any other table without what inherits from it. */
  readonly partitioned: boolean;
  /** The publication's WHERE, as SQL; the snapshot reads no other rows. */
  readonly rowFilter: string | null;
  readonly estimatedRows: number;
}

/** Something that keeps a table, or everything, from being captured, and the SQL that mends it. */
export interface Problem {
  readonly message: string;
  readonly sql?: string;
}

export interface TablePlan {
  readonly captured: readonly CapturedTable[];
  readonly problems: readonly Problem[];
  /** The SQL that creates the publication; undefined where it exists. */
  readonly createPublication: string | undefined;
}

const Published = z.object({
  schema: z.string(),
  table: z.string(),
  columns: z.array(z.string()).nullable(),
  rowFilter: z.string().nullable(),
});
const Publication = z.object({viaRoot: z.boolean(), all: z.boolean()});

/** First versions with what the plan depends on. */
const HAS_COLUMN_LISTS = 150_000;
const HAS_GENERATED_COLUMNS = 180_000;

/** What will be captured, and what stands in the way. Reads only. */
export async function planTables(
  client: ClientBase,
  settings: Settings,
  serverVersion: number,
): Promise<TablePlan> {
  const filter = {include: settings.FRESHET_TABLES_INCLUDE, exclude: settings.FRESHET_TABLES_EXCLUDE};
  const catalog = await readCatalog(client, filter);
  const publication = await readPublication(client, settings.FRESHET_PUBLICATION, serverVersion);
  const problems: Problem[] = [];
  if (catalog.length === 0)
    problems.push({message: `no table matches FRESHET_TABLES_INCLUDE (${filter.include.join(',')})`});
  const captured: CapturedTable[] = [];
  for (const table of catalog) {
    const published = publication?.tables.get(tableName(table.schema, table.table));
    const found = problemsOf(table, settings, publication !== undefined && published === undefined);
    problems.push(...found);
    if (found.length > 0) continue;
    try {
      captured.push({
        schema: tableSchema(definitionOf(table, published?.columns ?? null, serverVersion)),
        oid: table.oid,
        partitioned: table.kind === 'p',
        rowFilter: published?.rowFilter ?? null,
        estimatedRows: table.estimatedRows,
      });
    } catch (error) {
      if (!(error instanceof PipelineError)) throw error;
      problems.push({message: `${tableName(table.schema, table.table)}: ${error.message}`});
    }
  }
  if (publication && !publication.viaRoot && catalog.some(table => table.kind === 'p')) {
    const name = pgName(settings.FRESHET_PUBLICATION);
    problems.push({
      message: 'the publication sends partitions under their own names',
      sql: `ALTER PUBLICATION ${name} SET (publish_via_partition_root = true);`,
    });
  }
  problems.push(...collisions(captured.map(table => table.schema)));
  return {
    captured,
    problems,
    createPublication: publication ? undefined : creationSql(settings, catalog, serverVersion),
  };
}

function creationSql(settings: Settings, catalog: readonly CatalogTable[], serverVersion: number): string {
  const tables = catalog.map(table => pgName(table.schema, table.table)).join(', ');
  const generated = serverVersion >= HAS_GENERATED_COLUMNS ? ', publish_generated_columns = stored' : '';
  return `CREATE PUBLICATION ${pgName(settings.FRESHET_PUBLICATION)} FOR TABLE ${tables} WITH (publish_via_partition_root = true${generated});`;
}

function definitionOf(
  table: CatalogTable,
  published: readonly string[] | null,
  serverVersion: number,
): TableDefinition {
  const sent = (column: CatalogTable['columns'][number]): boolean => {
    if (published && serverVersion >= HAS_COLUMN_LISTS) return published.includes(column.name);
    return column.generated === '' || (column.generated === 's' && serverVersion >= HAS_GENERATED_COLUMNS);
  };
  return {
    schema: table.schema,
    table: table.table,
    key: keyOf(table) ?? [],
    columns: table.columns
      .filter(sent)
      .map(({name, typeOid, notNull, type}) => ({name, typeOid, notNull, type})),
  };
}

/** The columns by which a deletion names its row. */
const keyOf = (table: CatalogTable): string[] | null =>
  table.identity === 'i' ? table.identityIndex : table.primaryKey;

function problemsOf(table: CatalogTable, settings: Settings, unpublished: boolean): Problem[] {
  const name = tableName(table.schema, table.table);
  const sql = pgName(table.schema, table.table);
  const problems: Problem[] = [];
  const role = 'the role of FRESHET_PG_URL';
  if (!table.mayRead)
    problems.push({message: `${name}: ${role} may not read it`, sql: `GRANT SELECT ON ${sql} TO <role>;`});
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
  if (table.identity === 'n') {
    problems.push({
      message: `${name}: with REPLICA IDENTITY NOTHING a deletion does not say which row`,
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
      sql: `ALTER TABLE ${sql} DROP CONSTRAINT <its primary key>, ADD PRIMARY KEY (${keyOf(table)!
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
function collisions(tables: readonly TableSchema[]): Problem[] {
  const targets = new Map<string, string>();
  return tables.flatMap(({definition, name}) => {
    const target = `${definition.schema}__${definition.table}`;
    const other = targets.get(target);
    targets.set(target, name);
    return other === undefined
      ? []
      : [{message: `${name} and ${other} would share the target table ${target}`}];
  });
}

async function readPublication(client: ClientBase, name: string, serverVersion: number) {
  const publication = await client.query(
    'SELECT pubviaroot AS "viaRoot", puballtables AS "all" FROM pg_publication WHERE pubname = $1',
    [name],
  );
  if (publication.rows.length === 0) return undefined;
  const lists = serverVersion >= HAS_COLUMN_LISTS ? 'attnames::text[]' : 'NULL::text[]';
  const rowFilter = serverVersion >= HAS_COLUMN_LISTS ? 'rowfilter' : 'NULL::text';
  const {rows} = await client.query(
    `SELECT schemaname AS schema, tablename AS table, ${lists} AS columns, ${rowFilter} AS "rowFilter"
     FROM pg_publication_tables WHERE pubname = $1`,
    [name],
  );
  const tables = z.array(Published).parse(rows);
  return {
    ...Publication.parse(publication.rows[0]),
    tables: new Map(tables.map(table => [tableName(table.schema, table.table), table])),
  };
}
