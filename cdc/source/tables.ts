import type {ClientBase} from 'pg';
import {z} from 'zod';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type CatalogTable, readCatalog} from './catalog.ts';
import {collisions, keyOf, type Problem, problemsOf} from './table-problems.ts';
import {
  pgName,
  type TableDefinition,
  type TableSchema,
  tableName,
  tableSchema,
  targetName,
  viewName,
} from './table-schema.ts';

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

export interface TablePlan {
  readonly captured: readonly CapturedTable[];
  readonly problems: readonly Problem[];
  /** The SQL that creates the publication; undefined where it exists. */
  readonly createPublication: string | undefined;
  /** Only an owner can put a table into a publication. */
  readonly ownsAll: boolean;
}

const Published = z.object({
  schema: z.string(),
  table: z.string(),
  columns: z.array(z.string()).nullable(),
  rowFilter: z.string().nullable(),
});
const Publication = z.object({viaRoot: z.boolean(), allChanges: z.boolean()});

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
    // Without via_root a partitioned table is listed by its partitions alone.
    const listed = published !== undefined || (table.kind === 'p' && !publication?.viaRoot);
    const found = problemsOf(table, settings, publication !== undefined && !listed);
    problems.push(...found);
    if (found.length > 0) continue;
    const definition = definitionOf(table, published?.columns ?? null, serverVersion);
    const unsent = definition.key.filter(key => !definition.columns.some(column => column.name === key));
    if (unsent.length > 0) {
      const message = `the publication's column list leaves out ${unsent.join(', ')} of its key`;
      problems.push({message: `${tableName(table.schema, table.table)}: ${message}`});
      continue;
    }
    try {
      captured.push({
        schema: tableSchema(definition),
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
  const name = pgName(settings.FRESHET_PUBLICATION);
  if (publication && !publication.allChanges) {
    problems.push({
      message: 'the publication leaves out some kinds of change',
      sql: `ALTER PUBLICATION ${name} SET (publish = 'insert, update, delete, truncate');`,
    });
  }
  if (publication && !publication.viaRoot && catalog.some(table => table.kind === 'p')) {
    problems.push({
      message: 'the publication sends partitions under their own names',
      sql: `ALTER PUBLICATION ${name} SET (publish_via_partition_root = true);`,
    });
  }
  const schemas = captured.map(table => table.schema);
  problems.push(...collisions(schemas, 'target table', ({definition}) => targetName(definition)));
  problems.push(...collisions(schemas, 'view', ({definition}) => viewName(settings, definition)));
  problems.push(...overMetricViews(schemas, settings));
  return {
    captured,
    problems,
    createPublication:
      publication || catalog.length === 0 ? undefined : creationSql(settings, catalog, serverVersion),
    ownsAll: catalog.every(table => table.owned),
  };
}

/** Tables whose view of current rows would take the place of a metric view. */
function overMetricViews(schemas: readonly TableSchema[], settings: Settings): Problem[] {
  const taken = new Set(
    readMigrationFiles().flatMap(file => (file.kind === 'view' ? [file.name, file.object] : [])),
  );
  return schemas
    .filter(({definition}) => taken.has(viewName(settings, definition)))
    .map(({name, definition}) => ({
      message: `${name}: ${viewName(settings, definition)} is a metric view; set FRESHET_ANALYTICS_SCHEMA to another schema, and the table's view is called ${targetName(definition)}`,
    }));
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

async function readPublication(client: ClientBase, name: string, serverVersion: number) {
  const publication = await client.query(
    `SELECT pubviaroot AS "viaRoot", pubinsert AND pubupdate AND pubdelete AND pubtruncate AS "allChanges"
     FROM pg_publication WHERE pubname = $1`,
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
