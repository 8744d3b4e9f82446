import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {
  TableDefinition,
  type TableSchema,
  tableName,
  tableSchema,
  targetName,
} from '../source/table-schema.ts';
import {type ClickHouseClient, chName, insertRows, rows} from './clickhouse.ts';

export type TableState = 'snapshot' | 'streaming' | 'parked';

const TableRow = z.object({
  schema_name: z.string(),
  table_name: z.string(),
  state: z.enum(['snapshot', 'streaming', 'parked']),
  reason: z.string(),
  snapshot_position: z.string(),
  schema_id: z.string(),
});
export type TableRow = z.infer<typeof TableRow>;

const SourceRow = z.object({
  system_identifier: z.string(),
  timeline: z.number(),
  transport: z.string(),
  epoch: z.number(),
  consistent_point: z.string(),
  snapshot_done: z.number(),
});
export type SourceRow = z.infer<typeof SourceRow>;

/**
 * What the pipeline remembers, in ClickHouse beside the rows it is about: the source it follows, the state of each
 * table, and every table definition that rows were written with.
 */
export class Registry {
  readonly #client: ClickHouseClient;
  readonly #database: string;
  readonly #pipeline: string;
  readonly #schemas = new Map<string, TableSchema>();
  #clock = 0n;

  constructor(client: ClickHouseClient, settings: Settings) {
    this.#client = client;
    this.#database = settings.FRESHET_CLICKHOUSE_DATABASE;
    this.#pipeline = settings.FRESHET_SLOT;
  }

  #table(name: string): string {
    return chName(this.#database, name);
  }

  /** µs, rising with each call even where the clock stands still or steps back. */
  #now(): string {
    const clock = BigInt(Date.now()) * 1000n;
    this.#clock = clock > this.#clock ? clock : this.#clock + 1n;
    return this.#clock.toString();
  }

  async tables(): Promise<TableRow[]> {
    return rows(this.#client, TableRow, `SELECT * FROM ${this.#table('_tables')} FINAL`);
  }

  async setTables(
    tables: readonly TableSchema[],
    state: TableState,
    position: bigint,
    reason = '',
  ): Promise<void> {
    await insertRows(
      this.#client,
      this.#table('_tables'),
      tables.map(({definition, id}) => ({
        schema_name: definition.schema,
        table_name: definition.table,
        target: targetName(definition),
        state,
        reason,
        snapshot_position: position.toString(),
        schema_id: id,
        updated_at: this.#now(),
      })),
    );
  }

  /** Sets a table aside, with the reason that `status` and the dashboards show. */
  async park(name: string, reason: string): Promise<void> {
    await this.#change(row => nameOf(row) === name, 'parked', reason);
  }

  /** At a sink's start: what was set aside is tried again from where it stood. */
  async unpark(): Promise<void> {
    await this.#change(row => row.state === 'parked', 'streaming', '');
  }

  async #change(which: (row: TableRow) => boolean, state: TableState, reason: string): Promise<void> {
    const changed = (await this.tables()).filter(which).map(row => ({
      ...row,
      state,
      reason,
      target: targetName({schema: row.schema_name, table: row.table_name}),
      updated_at: this.#now(),
    }));
    await insertRows(this.#client, this.#table('_tables'), changed);
  }

  /** Must be called before the first row with this definition is sent: the sink reads it by the row's header. */
  async saveSchemas(tables: readonly TableSchema[]): Promise<void> {
    await insertRows(
      this.#client,
      this.#table('_schemas'),
      tables.map(({definition, id}) => ({
        schema_id: id,
        schema_name: definition.schema,
        table_name: definition.table,
        definition: JSON.stringify(definition),
        created_at: this.#now(),
      })),
    );
    for (const table of tables) this.#schemas.set(table.id, table);
  }

  /** The definition that a row was written with. Throws `kafka.bad_message` for one that nobody saved. */
  async schema(id: string): Promise<TableSchema> {
    const known = this.#schemas.get(id);
    if (known) return known;
    const [found] = await rows(
      this.#client,
      z.object({definition: z.string()}),
      `SELECT definition FROM ${this.#table('_schemas')} FINAL WHERE schema_id = {id: String}`,
      {id},
    );
    if (!found) throw new PipelineError('kafka.bad_message', `no table definition ${id}`);
    const table = tableSchema(TableDefinition.parse(JSON.parse(found.definition)));
    this.#schemas.set(id, table);
    return table;
  }

  async source(): Promise<SourceRow | undefined> {
    const [row] = await rows(
      this.#client,
      SourceRow,
      `SELECT * FROM ${this.#table('_source')} FINAL WHERE pipeline = {pipeline: String}`,
      {pipeline: this.#pipeline},
    );
    return row;
  }

  async saveSource(row: SourceRow): Promise<void> {
    await insertRows(this.#client, this.#table('_source'), [
      {...row, pipeline: this.#pipeline, updated_at: this.#now()},
    ]);
  }
}

export const nameOf = (row: TableRow): string => tableName(row.schema_name, row.table_name);
