import type {ClientBase} from 'pg';
import {z} from 'zod';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {PipelineError} from '../failures.ts';
import {topicName} from '../kafka/topics.ts';
import type {Settings} from '../settings/settings.ts';
import {REFUSED} from '../types/refused.ts';
import {type CatalogTable, readCatalog} from './catalog.ts';
import {HAS_COLUMN_LISTS} from './postgres.ts';
import {collisions, keyOf, type Problem, problemsOf, readable, storageProblems} from './table-problems.ts';
import {
  pgName,
  type TableDefinition,
  type TableSchema,
  tableName,
  tableSchema,
  targetName,
  viewName,
} from './table-schema.ts';

/** A table that is captured: how its rows are stored, and what the source's catalog said of it. */
export interface CapturedTable {
  readonly schema: TableSchema;
  readonly source: CatalogTable;
  readonly oid: number;
  /** A partitioned root is read with its partitions; any other table without what inherits from it. */
  readonly partitioned: boolean;
  /** The publication's WHERE, as SQL; no other rows are read. */
  readonly rowFilter: string | null;
  readonly estimatedRows: number;
}

export const capturedTable = (schema: TableSchema, source: CatalogTable): CapturedTable => ({
  schema,
  source,
  oid: source.oid,
  partitioned: source.kind === 'p',
  rowFilter: source.published?.rowFilter ?? null,
  estimatedRows: source.estimatedRows,
});

export interface TablePlan {
  readonly captured: readonly CapturedTable[];
  readonly problems: readonly Problem[];
  /** The SQL that creates the publication; undefined where it exists. */
  readonly createPublication: string | undefined;
  /** Only an owner can put a table into a publication. */
  readonly ownsAll: boolean;
}

const Publication = z.object({viaRoot: z.boolean(), allChanges: z.boolean()});

/** First version with generated columns in publications. */
const HAS_GENERATED_COLUMNS = 180_000;

/** What will be captured, and what stands in the way. Reads only. */
export async function planTables(
  client: ClientBase,
  settings: Settings,
  serverVersion: number,
): Promise<TablePlan> {
  const catalog = await readCatalog(client, settings, serverVersion);
  const publication = await readPublication(client, settings.FRESHET_PUBLICATION);
  const problems: Problem[] = [];
  if (catalog.length === 0) {
    const include = settings.FRESHET_TABLES_INCLUDE.join(',');
    problems.push({message: `no table matches FRESHET_TABLES_INCLUDE (${include})`, onlyAtFirst: true});
  }
  const captured: CapturedTable[] = [];
  for (const table of catalog) {
    // Without via_root a partitioned table is listed by its partitions alone, which is told of below.
    const untold = publication === undefined || (table.kind === 'p' && !publication.viaRoot);
    const plan = planTable(table, settings, serverVersion, untold);
    problems.push(
      ...plan.problems.map(problem => ({...problem, table: tableName(table.schema, table.table)})),
    );
    if (plan.schema) captured.push(capturedTable(plan.schema, table));
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
  problems.push(
    ...placeProblems(
      captured.map(table => table.schema),
      settings,
    ),
  );
  return {
    captured,
    problems,
    createPublication:
      publication || catalog.length === 0 ? undefined : creationSql(settings, catalog, serverVersion),
    ownsAll: catalog.every(table => table.owned),
  };
}

/** How one table would be captured, in a target of its own, or what keeps it from being. */
export function planTable(
  table: CatalogTable,
  settings: Settings,
  serverVersion: number,
  unpublishedYet = false,
): {schema?: TableSchema; problems: readonly Problem[]} {
  const found = problemsOf(table, settings, !unpublishedYet && table.published === null);
  const refused = (problems: readonly Problem[]) => ({problems: readable(problems)});
  if (found.length > 0) return refused(found);
  const name = tableName(table.schema, table.table);
  const definition = definitionOf(table, serverVersion);
  const unsent = definition.key.filter(key => !definition.columns.some(column => column.name === key));
  if (unsent.length > 0) {
    const message = `${name}: the publication's column list leaves out ${unsent.join(', ')} of its key`;
    return refused([{message}]);
  }
  // The text of a composite, or of a range, is made of that of its parts.
  const unfit = table.columns.flatMap(({name: column, within}) => {
    const type = within?.find(part => Object.hasOwn(REFUSED, part));
    const sent = definition.columns.some(own => own.name === column);
    return type && sent ? [{message: `${name}: column ${column} has ${type} within: ${REFUSED[type]}`}] : [];
  });
  if (unfit.length > 0) return refused(unfit);
  try {
    const schema = tableSchema(definition);
    const problems = storageProblems(schema, settings);
    return problems.length > 0 ? refused(problems) : {schema, problems};
  } catch (error) {
    if (!(error instanceof PipelineError)) throw error;
    return refused([{message: `${name}: ${error.message}`}]);
  }
}

/** Tables whose places are taken: by each other, or by a metric view. */
export function placeProblems(schemas: readonly TableSchema[], settings: Settings): Problem[] {
  const {FRESHET_TRANSPORT: transport, FRESHET_TOPIC_PREFIX: prefix} = settings;
  return readable([
    ...collisions(schemas, 'name', ({name}) => [name]),
    ...collisions(schemas, 'target table', ({definition}) => [
      targetName({...definition, generation: 1}),
      targetName(definition),
    ]),
    ...collisions(schemas, 'view', ({definition}) => [viewName(settings, definition)]),
    ...(transport === 'kafka'
      ? collisions(schemas, "topic, as Kafka does not tell '.' from '_',", ({definition}) => [
          topicName(prefix, definition.schema, definition.table).replaceAll('.', '_'),
        ])
      : []),
    ...overMetricViews(schemas, settings),
  ]);
}

/** Tables whose view of current rows would take the place of a metric view. */
function overMetricViews(schemas: readonly TableSchema[], settings: Settings): Problem[] {
  const taken = new Set(
    readMigrationFiles().flatMap(file => (file.kind === 'view' ? [file.name, file.object] : [])),
  );
  return schemas
    .filter(({definition}) => taken.has(viewName(settings, definition)))
    .map(({name, definition}) => ({
      table: name,
      message: `${name}: ${viewName(settings, definition)} is a metric view; set FRESHET_ANALYTICS_SCHEMA to another schema, and the table's view is called ${definition.schema}__${definition.table}`,
    }));
}

function creationSql(settings: Settings, catalog: readonly CatalogTable[], serverVersion: number): string {
  const tables = catalog.map(table => pgName(table.schema, table.table)).join(', ');
  const generated = serverVersion >= HAS_GENERATED_COLUMNS ? ', publish_generated_columns = stored' : '';
  return `CREATE PUBLICATION ${pgName(settings.FRESHET_PUBLICATION)} FOR TABLE ${tables} WITH (publish_via_partition_root = true${generated});`;
}

function definitionOf(table: CatalogTable, serverVersion: number): TableDefinition {
  const listed = table.published?.columns;
  const sent = ({name, generated}: CatalogTable['columns'][number]): boolean => {
    // Before 18 a column list can name generated columns, and they are not sent all the same.
    const can = generated === '' || (generated === 's' && serverVersion >= HAS_GENERATED_COLUMNS);
    return can && (!listed || serverVersion < HAS_COLUMN_LISTS || listed.includes(name));
  };
  return {
    schema: table.schema,
    table: table.table,
    oid: table.oid,
    generation: 1,
    dropped: [],
    key: keyOf(table) ?? [],
    columns: table.columns.filter(sent).map(({name, number, typeOid, notNull, type}) => ({
      name,
      number,
      target: name,
      typeOid,
      // ClickHouse takes plain arrays whose names share what stands before a dot for columns of one Nested, and wants
      // them of one length. As Variant, which holds NULL too, they are not.
      notNull: notNull && !(type.array && name.includes('.')),
      type,
    })),
  };
}

async function readPublication(client: ClientBase, name: string) {
  const {rows} = await client.query(
    `SELECT pubviaroot AS "viaRoot", pubinsert AND pubupdate AND pubdelete AND pubtruncate AS "allChanges"
     FROM pg_publication WHERE pubname = $1`,
    [name],
  );
  return rows.length === 0 ? undefined : Publication.parse(rows[0]);
}
