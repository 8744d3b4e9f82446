import {type Context, migrateAll} from './context.ts';
import {asPipelineError, PipelineError} from './failures.ts';
import {describes, type UnannouncedChange} from './kafka/change-decoder.ts';
import type {Publisher} from './kafka/transport.ts';
import {failpoint} from './observe/failpoint.ts';
import {retrying} from './retry.ts';
import {nameOf, type Registry} from './sink/registry.ts';
import {
  createTarget,
  dropTarget,
  existingTargets,
  hideTarget,
  isOurs,
  showTarget,
  widenTarget,
} from './sink/target.ts';
import {viewsUsing} from './sink/view-users.ts';
import {describeLocked} from './source/catalog.ts';
import {clientConfig, RENAMED, withClient} from './source/postgres.ts';
import {compareTables} from './source/schema-change.ts';
import {type ColumnSchema, pgName, type TableSchema, targetName} from './source/table-schema.ts';
import type {SchemaAction, TableTracker} from './source/table-tracker.ts';
import {type CapturedTable, capturedTable, planTable} from './source/tables.ts';

/**
 * Does what schema changes ask of the targets, in stream order: capture calls it between the rows before a change and
 * those behind it. Every step can be done twice, and what was done is written down last: a crash in the middle is
 * finished by the replay, which comes to the same place again.
 */
export class SchemaChanges {
  readonly #context: Context;
  readonly #publisher: Publisher;
  readonly #options: {
    /** A table is to be read beside the stream. */
    readonly onRead: (oid: number) => void;
    /** A table's changes are to be passed over. */
    readonly onParked: (oid: number) => void;
  };
  /** How each table is captured by what was applied so far; what was decoded is ahead of it. */
  readonly #applied = new Map<number, CapturedTable>();
  /** One at a time: a reading that ends must not show its target in the middle of a change. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    context: Context,
    publisher: Publisher,
    options: {onRead: (oid: number) => void; onParked: (oid: number) => void},
  ) {
    this.#context = context;
    this.#publisher = publisher;
    this.#options = options;
  }

  /** The table as its target has it; undefined where it is not captured. */
  applied(oid: number): CapturedTable | undefined {
    return this.#applied.get(oid);
  }

  /** Is this still the table's target, under this name? In place it may have changed. */
  isCurrent({oid, schema}: CapturedTable): boolean {
    const now = this.#applied.get(oid)?.schema;
    return now?.name === schema.name && now.definition.generation === schema.definition.generation;
  }

  /** At the start: how the tables are captured. */
  begin(tables: readonly CapturedTable[]): void {
    for (const table of tables) this.#applied.set(table.oid, table);
  }

  /** Runs `work` alone. */
  alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work, work);
    this.#last = done.catch(() => {});
    return done;
  }

  /** Resolves when the rows behind the change can be sent. A table that its target cannot follow is parked. */
  async apply(action: SchemaAction): Promise<void> {
    const {log, signal} = this.#context;
    try {
      // Known as done before anybody else has a turn: a reading that ends must not take it for what it was.
      const work = async (): Promise<void> => {
        await this.#apply(action);
        if (action.kind === 'publish' || !action.table) return;
        if (action.kind === 'park' || action.kind === 'gone') this.#applied.delete(action.table.oid);
        else this.#applied.set(action.table.oid, action.table);
      };
      await retrying(`schema of ${action.name}`, () => this.alone(work), {log, signal});
      if (action.kind === 'read') this.#options.onRead(action.table.oid);
    } catch (thrown) {
      const error = asPipelineError(thrown);
      if (error.reaction === 'retry' || !('table' in action) || !action.table) throw error;
      await this.park(action.table, error);
    }
  }

  /** Its rows are passed over until it is described anew, or the pipeline starts again. */
  async park({oid, schema, source}: CapturedTable, error: PipelineError): Promise<void> {
    const {log, registry} = this.#context;
    const {name} = schema;
    log.error({code: error.code, hint: error.hint, table: name}, `${name} is parked: ${error.message}`);
    this.#options.onParked(oid);
    await this.alone(async () => {
      this.#applied.delete(oid);
      await registry.parkAtSource(source, error.message);
    });
  }

  async #apply(action: SchemaAction): Promise<void> {
    const {registry, log} = this.#context;
    const {name, version: since} = action;
    switch (action.kind) {
      case 'note':
        return registry.saveHistory([{since, table: action.table, kind: 'note', change: '', views: []}]);
      case 'in place':
        return this.#inPlace(action);
      case 'read': {
        const {table, text, touched, before} = action;
        const views = before ? await this.#nameViews(before.schema, touched, text) : [];
        log.warn(
          {table: name, generation: table.schema.definition.generation},
          `${name} is read again: ${text}`,
        );
        await this.prepareTargets([table.schema], {empty: true});
        failpoint('schema.read');
        await registry.setTables([table.schema], 'snapshot', {reason: text});
        return this.#write([{since, table, kind: 'read', change: text, views}]);
      }
      case 'publish':
        return this.#publish(action);
      case 'park': {
        const {table, text, source} = action;
        log.error({table: name}, `${name} is parked: ${text}`);
        await registry.parkAtSource(source, text);
        if (table) await this.#write([{since, table, kind: 'park', change: text, views: []}]);
        return;
      }
      case 'gone': {
        const {table, text} = action;
        if (!table) return registry.drop(name, text);
        const views = await this.#nameViews(table.schema, table.schema.columns, text);
        log.warn(
          {table: name},
          `${name}: ${text}; its view goes, ${targetName(table.schema.definition)} stays`,
        );
        await hideTarget(this.#context.client, this.#context.settings, table.schema);
        await registry.saveHistory([{since, table, kind: 'gone', change: text, views}]);
        return registry.drop(name, text);
      }
    }
  }

  async #inPlace({name, version: since, table, change}: SchemaAction & {kind: 'in place'}): Promise<void> {
    const {registry, client, settings, log} = this.#context;
    const known = (await registry.tables()).find(row => nameOf(row) === name);
    const views = await this.#nameViews(table.schema, change.touched, change.text);
    log.info({table: name, views}, `${name}: ${change.text}`);
    await registry.saveSchemas([table.schema]); // first: rows that were written with it may be on their way, whatever becomes of the target
    await widenTarget(client, settings, table.schema, change);
    failpoint('schema.in_place');
    // While it is read its view still shows the target of before, or there is none.
    if (known?.target === targetName(table.schema.definition)) {
      await showTarget(client, settings, table.schema);
      await registry.setTables([table.schema], known.state, {
        reason: known.reason,
        position: BigInt(known.snapshot_position),
        shown: true,
      });
      await migrateAll(client, settings, log);
    }
    await this.#write([{since, table, kind: 'in place', change: change.text, views}]);
  }

  /** The end of a change: what is written down is not done again by a replay. */
  async #write(entries: Parameters<Registry['saveHistory']>[0]): Promise<void> {
    failpoint('schema.before_written');
    await this.#context.registry.saveHistory(entries);
    failpoint('schema.written');
  }

  /**
   * A row came in another shape than was announced, as without the event triggers it may. What the catalog says is
   * taken where it fits that row and the target can follow; otherwise the table is read again. Either holds from the
   * next start of the stream.
   */
  async adopt(unannounced: UnannouncedChange, tracker: TableTracker, serverVersion: number): Promise<void> {
    const {settings, registry} = this.#context;
    const {relation, version} = unannounced;
    const before = tracker.newest(relation.oid);
    if (!before) return;
    const {tables} = await withClient(clientConfig(settings), postgres =>
      describeLocked(postgres, settings, serverVersion, [relation.oid]),
    );
    const source = tables[0];
    const schema = source && planTable(source, settings, serverVersion).schema;
    if (schema && schema.name === before.schema.name && describes(relation, schema)) {
      const rewritten = source.fileNode !== before.source.fileNode;
      const change = compareTables(before, capturedTable(schema, source), {rewritten, late: true});
      if (change.kind === 'in place') {
        const table = capturedTable(change.next, source);
        return this.apply({kind: 'in place', version, name: schema.name, table, change});
      }
    }
    // Whatever had the name that this one has now has another one too, or is gone.
    for (const name of [before.source, {schema: relation.schema, table: relation.table}]) {
      await registry.announce(name, unannounced.message);
    }
  }

  /**
   * Makes targets and topics. What a reading that did not end left behind, and no view shows, may be the target of
   * another definition, or hold rows that are gone. Throws `ch.target_mismatch` where somebody else made the target.
   */
  async prepareTargets(
    schemas: readonly TableSchema[],
    {empty = false}: {empty?: boolean} = {},
  ): Promise<void> {
    const {registry} = this.#context;
    const shown = new Set((await registry.tables()).map(({target}) => target));
    await registry.saveSchemas(schemas); // first: rows that were written with it may be on their way, whatever becomes of the target
    for (const schema of schemas) await this.#prepareTarget(schema, {empty, shown});
    await this.#publisher.prepare(schemas);
  }

  async #prepareTarget(
    schema: TableSchema,
    {empty, shown}: {empty: boolean; shown: ReadonlySet<string>},
  ): Promise<void> {
    const {client, settings} = this.#context;
    const ours = !shown.has(targetName(schema.definition)) && (await isOurs(client, settings, schema));
    if (ours && empty) await dropTarget(client, settings, schema);
    try {
      await createTarget(client, settings, schema);
    } catch (error) {
      if (!ours || asPipelineError(error).code !== 'ch.target_mismatch') throw error;
      await dropTarget(client, settings, schema);
      await createTarget(client, settings, schema);
    }
  }

  /** The table was read: its view shows the new target, and older ones go. */
  async show({schema}: CapturedTable, position: bigint): Promise<void> {
    const {client, settings, registry, log} = this.#context;
    await showTarget(client, settings, schema);
    failpoint('schema.shown');
    await registry.setTables([schema], 'streaming', {position, shown: true});
    const existing = await existingTargets(client, settings);
    for (let generation = schema.definition.generation - 1; generation > 0; generation--) {
      const older = {...schema, definition: {...schema.definition, generation}};
      if (existing.has(targetName(older.definition))) await dropTarget(client, settings, older);
    }
    await migrateAll(client, settings, log);
  }

  /** Says which views use what changes, while they still work. */
  async #nameViews(table: TableSchema, touched: readonly ColumnSchema[], text: string): Promise<string[]> {
    const {client, settings, log} = this.#context;
    const views = await viewsUsing(client, settings, table, touched);
    if (views.length > 0) {
      log.warn({table: table.name, views}, `${table.name}: ${text}; these views use it: ${views.join(', ')}`);
    }
    return views;
  }

  /** Puts a new table into the publication; the source then tells of it again, as published. */
  async #publish({name, source}: SchemaAction & {kind: 'publish'}): Promise<void> {
    const {settings, registry, log} = this.#context;
    await registry.announce(source, 'it is new, and being put into the publication');
    const sql = `ALTER PUBLICATION ${pgName(settings.FRESHET_PUBLICATION)} ADD TABLE ${pgName(source.schema, source.table)}`;
    try {
      const there = await withClient(clientConfig(settings), async postgres => {
        const {rowCount} = await postgres.query(
          'SELECT FROM pg_class WHERE oid = $1 AND NOT relispartition',
          [source.oid],
        );
        if (rowCount === 0) return false;
        await postgres.query(`SET lock_timeout = '5s'; ${sql}`);
        return true;
      });
      if (!there) return registry.drop(name, 'it is gone again, or the partition of another table');
      log.info({table: name}, `${name} is new: it was put into publication ${settings.FRESHET_PUBLICATION}`);
    } catch (error) {
      if (!(error instanceof PipelineError)) throw error;
      const {code = ''} = (error.cause ?? {}) as {code?: string};
      // What the stream tells next decides.
      if (code === '42710') return; // it is in there already
      if (RENAMED.has(code)) return registry.drop(name, 'it is gone again, or has another name');
      if (error.reaction === 'retry') throw error;
      await registry.parkAtSource(source, `it is not in the publication: ${sql};`);
    }
  }
}
