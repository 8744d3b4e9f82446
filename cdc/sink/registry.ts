import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {CatalogTable} from '../source/catalog.ts';
import type {Lsn} from '../source/lsn.ts';
import {
  TableDefinition,
  type TableSchema,
  tableName,
  tableSchema,
  targetName,
} from '../source/table-schema.ts';
import type {HistoryEntry} from '../source/table-tracker.ts';
import {type CapturedTable, capturedTable} from '../source/tables.ts';
import {type ClickHouseClient, chName, command, insertRows, rows} from './clickhouse.ts';

const TableState = z.enum(['snapshot', 'streaming', 'parked', 'dropped']);
export type TableState = z.infer<typeof TableState>;

const TableRow = z.object({
  schema_name: z.string(),
  table_name: z.string(),
  state: TableState,
  reason: z.string(),
  /** The table that its view shows. */
  target: z.string(),
  /** The point its rows were read at; while it is read beside the stream, at which that began. */
  snapshot_position: z.string(),
  /** What its view shows; '' before there is one. */
  schema_id: z.string(),
  /** Set aside at the source: its changes were passed over, so it must be read again. */
  needs_read: z.number(),
});
export type TableRow = z.infer<typeof TableRow>;

/** What was done about a change of a table. */
export type ChangeKind = 'in place' | 'note' | 'read' | 'park' | 'gone';

const ChangeRow = z.object({
  schema_name: z.string(),
  table_name: z.string(),
  oid: z.number(),
  since: z.string(),
  kind: z.string(),
  change: z.string(),
  views: z.array(z.string()),
  at: z.string(),
});
export type ChangeRow = z.infer<typeof ChangeRow>;

const HistoryRow = z.object({
  oid: z.number(),
  since: z.string(),
  schema_id: z.string(),
  generation: z.number(),
  schema_name: z.string(),
  table_name: z.string(),
  source: z.string(),
});

/** What is written down of a table's first reading. */
export const FIRST_READ = 'it was read';

/** All that is remembered of how tables were captured. */
export interface History {
  /** Oldest first, by OID. */
  readonly byOid: ReadonlyMap<number, readonly HistoryEntry[]>;
  /** The highest generation of each name. */
  readonly generations: ReadonlyMap<string, number>;
}

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

  /**
   * µs, rising with each call even where the clock stands still or steps back: of two rows that one with the higher
   * number counts. What is there already was read before, and may have been written by a clock that went ahead.
   */
  #now(): string {
    const clock = BigInt(Date.now()) * 1000n;
    this.#clock = clock > this.#clock ? clock : this.#clock + 1n;
    return this.#clock.toString();
  }

  async tables(): Promise<TableRow[]> {
    return this.#stamped(TableRow, `${this.#table('_tables')} FINAL`);
  }

  async #stamped<T extends z.ZodRawShape>(
    schema: z.ZodObject<T>,
    from: string,
    params: Record<string, unknown> = {},
  ): Promise<z.infer<z.ZodObject<T>>[]> {
    const sql = `SELECT *, toString(toUnixTimestamp64Micro(updated_at)) AS stamp FROM ${from}`;
    const found = await rows(this.#client, z.looseObject({stamp: z.string()}), sql, params);
    return found.map(row => {
      if (BigInt(row.stamp) > this.#clock) this.#clock = BigInt(row.stamp);
      return schema.parse(row);
    });
  }

  /** @param shown what the tables' views show from now on; their last definitions where it is not given. */
  async setTables(
    tables: readonly TableSchema[],
    state: TableState,
    {position = 0n, reason = '', shown}: {position?: bigint; reason?: string; shown?: true} = {},
  ): Promise<void> {
    const known = new Map((await this.tables()).map(row => [nameOf(row), row]));
    await insertRows(
      this.#client,
      this.#table('_tables'),
      tables.map(({definition, id, name}) => ({
        schema_name: definition.schema,
        table_name: definition.table,
        target: shown ? targetName(definition) : (known.get(name)?.target ?? ''),
        state,
        reason,
        snapshot_position: position.toString(),
        schema_id: shown ? id : (known.get(name)?.schema_id ?? ''),
        needs_read: state === 'parked' ? (known.get(name)?.needs_read ?? 0) : 0,
        updated_at: this.#now(),
      })),
    );
  }

  /** Sets a table aside, with the reason that `status` and the dashboards show. */
  async park(name: string, reason: string): Promise<void> {
    await this.#change(row => nameOf(row) === name, 'parked', reason);
  }

  /** Sets a table aside at the source; it may be one that was never captured. */
  async parkAtSource(table: {schema: string; table: string}, reason: string): Promise<void> {
    await this.#put(table, {state: 'parked', reason, needs_read: 1});
  }

  /** A table is going to be captured, and nothing of it is there yet. */
  async announce(table: {schema: string; table: string}, reason: string): Promise<void> {
    await this.#put(table, {state: 'snapshot', reason, needs_read: 0, snapshot_position: '0'});
  }

  async #put(
    table: {schema: string; table: string},
    facts: Pick<TableRow, 'state' | 'reason' | 'needs_read'> & Partial<Pick<TableRow, 'snapshot_position'>>,
  ): Promise<void> {
    const known = (await this.tables()).find(row => nameOf(row) === tableName(table.schema, table.table));
    await insertRows(this.#client, this.#table('_tables'), [
      {
        ...(known ?? {target: '', snapshot_position: '0', schema_id: ''}),
        schema_name: table.schema,
        table_name: table.table,
        ...facts,
        updated_at: this.#now(),
      },
    ]);
  }

  /** Tables that have, or had, a target and a topic. */
  async everCaptured(): Promise<{schema: string; table: string; name: string}[]> {
    const found = await rows(
      this.#client,
      z.object({schema: z.string(), table: z.string()}),
      `SELECT DISTINCT schema_name AS schema, table_name AS table FROM ${this.#table('_schema_changes')}`,
    );
    return found.map(row => ({...row, name: tableName(row.schema, row.table)}));
  }

  /** At its next start capture reads the table again; false where it does so anyway, or the table is gone. */
  async readAgain(name: string, reason: string): Promise<boolean> {
    const follows = (row: TableRow): boolean =>
      nameOf(row) === name && row.state !== 'dropped' && !(row.state === 'parked' && row.needs_read === 1);
    if (!(await this.tables()).some(follows)) return false;
    await this.#change(follows, 'snapshot', reason);
    return true;
  }

  /** The table is not there any more. */
  async drop(name: string, reason: string): Promise<void> {
    await this.#change(row => nameOf(row) === name, 'dropped', reason);
  }

  /**
   * What a sink set aside is tried again from where it stood: at its start, or where somebody asks for one table. One that
   * was being read is being read again.
   */
  async unpark(name?: string): Promise<void> {
    const which = (row: TableRow): boolean => isSetAsideBySink(row) && (name ?? nameOf(row)) === nameOf(row);
    if (!(await this.tables()).some(which)) return;
    const history = await this.history();
    await this.#change(row => which(row) && showsNewest(row, history), 'streaming', '');
    await this.#change(row => which(row) && !showsNewest(row, history), 'snapshot', 'it is being read');
  }

  async #change(which: (row: TableRow) => boolean, state: TableState, reason: string): Promise<void> {
    const changed = (await this.tables()).filter(which).map(row => ({
      ...row,
      state,
      reason,
      needs_read: 0,
      ...(state === 'snapshot' && {snapshot_position: '0'}), // nothing of it is read yet
      updated_at: this.#now(),
    }));
    await insertRows(this.#client, this.#table('_tables'), changed);
  }

  /** From here on no table is known to be complete up to any position. */
  async forgetWatermarks(): Promise<void> {
    const table = this.#table('_watermarks');
    await command(
      this.#client,
      `INSERT INTO ${table} SELECT * REPLACE (0 AS position, fromUnixTimestamp64Micro(${this.#now()}, 'UTC') AS updated_at) FROM ${table} FINAL`,
    );
  }

  /** Remembers how tables are captured from a version on, by definitions that were saved, and what was done to get there. */
  async saveHistory(
    entries: readonly (HistoryEntry & {kind: ChangeKind; change: string; views: readonly string[]})[],
  ): Promise<void> {
    await insertRows(
      this.#client,
      this.#table('_schema_changes'),
      entries.map(({since, table: {schema, source}, kind, change, views}) => ({
        schema_name: schema.definition.schema,
        table_name: schema.definition.table,
        oid: source.oid,
        since: since.toString(),
        kind,
        change,
        views,
        generation: schema.definition.generation,
        schema_id: schema.id,
        source: JSON.stringify(source),
        at: this.#now(),
      })),
    );
  }

  async history(): Promise<History> {
    const found = await rows(
      this.#client,
      HistoryRow,
      // A since of text would be sorted as text: 9 behind 10.
      `SELECT oid, since, schema_id, generation, schema_name, table_name, source
       FROM ${this.#table('_schema_changes')} FINAL WHERE kind <> 'gone' ORDER BY since`,
    );
    const byOid = new Map<number, HistoryEntry[]>();
    const generations = new Map<string, number>();
    for (const row of found) {
      const name = tableName(row.schema_name, row.table_name);
      generations.set(name, Math.max(generations.get(name) ?? 0, row.generation));
      const list = byOid.get(row.oid) ?? [];
      byOid.set(row.oid, list);
      const source = CatalogTable.parse(JSON.parse(row.source));
      list.push({since: BigInt(row.since), table: capturedTable(await this.schema(row.schema_id), source)});
    }
    return {byOid, generations};
  }

  /** The tables whose current rows can be read, as their views show them. */
  async shownTables(): Promise<CapturedTable[]> {
    const {byOid} = await this.history();
    const entries = [...byOid.values()].flat();
    return (await this.tables()).flatMap(row => {
      if (row.schema_id === '' || row.state === 'dropped') return [];
      return entries.findLast(({table}) => table.schema.id === row.schema_id)?.table ?? [];
    });
  }

  /** The last changes of the tables' definitions, newest first; the first reading of a table is none. */
  async changes(): Promise<ChangeRow[]> {
    return rows(
      this.#client,
      ChangeRow,
      `SELECT schema_name, table_name, oid, since, kind, change, views, toString(at) AS at
       FROM ${this.#table('_schema_changes')} FINAL WHERE kind <> 'note' AND change <> '${FIRST_READ}' ORDER BY at DESC LIMIT 200`,
    );
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
    const from = `${this.#table('_source')} FINAL WHERE pipeline = {pipeline: String}`;
    return (await this.#stamped(SourceRow, from, {pipeline: this.#pipeline}))[0];
  }

  /** The highest epoch that rows were written under, by whatever slot; -1 where there are none. */
  async highestEpoch(): Promise<number> {
    const sql = `SELECT maxOrNull(epoch) AS epoch FROM ${this.#table('_source')}`;
    const [found] = await rows(this.#client, z.object({epoch: z.number().nullable()}), sql);
    return found?.epoch ?? -1;
  }

  async saveSource(row: SourceRow): Promise<void> {
    await insertRows(this.#client, this.#table('_source'), [
      {...row, pipeline: this.#pipeline, updated_at: this.#now()},
    ]);
  }
}

/** A sink that set a table aside leaves its offsets where they are. */
export const isSetAsideBySink = (row: TableRow): boolean => row.state === 'parked' && row.needs_read === 0;

/** Does the view show what the stream's rows go into now? Otherwise that is still being read. */
export const showsNewest = (row: TableRow, {generations}: Pick<History, 'generations'>): boolean =>
  row.target ===
  targetName({
    schema: row.schema_name,
    table: row.table_name,
    generation: generations.get(nameOf(row)) ?? 1,
  });

/** The table is being read beside the stream, and from where; undefined where nothing of that reading holds. */
export const readingSince = ({state, snapshot_position: position}: TableRow): Lsn | undefined =>
  state === 'snapshot' && position !== '0' ? (BigInt(position) as Lsn) : undefined;

export const nameOf = (row: TableRow): string => tableName(row.schema_name, row.table_name);
