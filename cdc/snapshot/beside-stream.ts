import {setTimeout as sleep} from 'node:timers/promises';
import type {ClientBase} from 'pg';
import type {Context} from '../context.ts';
import {asPipelineError} from '../failures.ts';
import type {Publisher} from '../kafka/transport.ts';
import {backoff, retrying} from '../retry.ts';
import type {SchemaChanges} from '../schema-changes.ts';
import {DeadLetters} from '../sink/dead-letters.ts';
import {nameOf, readingSince} from '../sink/registry.ts';
import {deleteBelow} from '../sink/target.ts';
import {readCatalog} from '../source/catalog.ts';
import {type Lsn, NO_LSN, rowVersion} from '../source/lsn.ts';
import {clientConfig, currentPosition, readServerVersion, withClient} from '../source/postgres.ts';
import {ReplicationConnection} from '../source/replication-connection.ts';
import {createTemporarySlot} from '../source/slot.ts';
import {type CapturedTable, capturedTable} from '../source/tables.ts';
import {chunksLeft, type PlannedTable, planChunks, SnapshotLog} from './plan.ts';
import {readTables} from './read-tables.ts';

export interface TableReadsOptions {
  readonly changes: SchemaChanges;
  readonly publisher: Publisher;
  readonly database: string;
  readonly epoch: number;
  /** The position up to which the stream was decoded, and all of it is durable. */
  readonly streamed: () => Lsn;
}

/** A table that is being read: how it is divided, and at which point that began. */
interface Reading {
  readonly planned: PlannedTable;
  readonly first: Lsn;
  readonly remembered: SnapshotLog;
}

const POLL_MS = 50;

/**
 * Reads tables while the stream goes on: each under the snapshot of a temporary slot, whose position is exact, into a
 * target of its own. The stream's rows go there too, from the message that started it, and versions decide. When all
 * is there the table's view shows the new target: until then readers see the old one. A reading that was broken off goes
 * on with the chunks that are missing.
 */
export class TableReads {
  readonly #context: Context;
  readonly #options: TableReadsOptions;
  readonly #waiting: number[] = [];
  #wake: () => void = () => {};

  constructor(context: Context, options: TableReadsOptions) {
    this.#context = context;
    this.#options = options;
  }

  /** @param oid of a table whose newest definition has an empty target. */
  add(oid: number): void {
    if (!this.#waiting.includes(oid)) this.#waiting.push(oid);
    this.#wake();
  }

  /** Reads what waits, one table at a time, until the signal aborts. Rejects on what no other attempt can mend. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const oid = this.#waiting.shift();
      if (oid !== undefined) await this.#readInTheEnd(oid, signal);
      else {
        const {promise, resolve} = Promise.withResolvers<void>();
        this.#wake = resolve;
        signal.addEventListener('abort', () => resolve(), {once: true});
        await promise;
      }
    }
  }

  async #readInTheEnd(oid: number, signal: AbortSignal): Promise<void> {
    const {log} = this.#context;
    for (let attempt = 0; !signal.aborted; attempt++) {
      const table = this.#options.changes.applied(oid);
      if (!table) return; // it is gone, or parked
      try {
        if (await this.#read(table, signal)) return;
      } catch (thrown) {
        if (signal.aborted) return;
        const error = asPipelineError(thrown);
        if (error.reaction === 'park' || error.code === 'pg.permission') {
          await this.#options.changes.park(table, error);
          return;
        }
        // A target that is gone was replaced by that of a newer definition, which is read next.
        if (error.reaction !== 'retry' && error.code !== 'ch.not_set_up') throw error;
        log.warn(
          {code: error.code, hint: error.hint, table: table.schema.name, attempt},
          `reading ${table.schema.name}: ${error.message}`,
        );
      }
      await backoff(Math.min(attempt, 6), signal);
    }
  }

  /** False where the table was altered meanwhile: then the stream tells how, and it is read as it is then. */
  async #read(table: CapturedTable, signal: AbortSignal): Promise<boolean> {
    const {client, settings, log} = this.#context;
    const letters = new DeadLetters(client, settings);
    const {epoch, changes, publisher, database} = this.#options;
    const {name} = table.schema;
    const config = clientConfig(settings);
    const connection = await ReplicationConnection.connect(config);
    signal.addEventListener('abort', () => connection.close(), {once: true});
    try {
      const {consistentPoint, snapshotName, reading} = await withClient(config, async postgres => {
        const slot = await createTemporarySlot(postgres, connection, settings.FRESHET_SLOT);
        const reading =
          (await this.#begun(table)) ?? (await this.#begin(postgres, table, slot.consistentPoint));
        return {...slot, reading};
      });
      const {planned, first, remembered} = reading;
      const [read] = await readTables(this.#context, {
        tables: [
          {
            table: planned.table,
            chunks: chunksLeft(planned),
            ...(planned.finished.size > 0 && {done: planned.done}),
          },
        ],
        snapshotName,
        publisher,
        database,
        epoch,
        position: consistentPoint,
        signal,
        workers: 1,
        onChunk: (_, chunk, sizes) => remembered.finish(table, chunk, {...sizes, at: consistentPoint}),
      });
      if (read?.failed) throw read.failed;
      if (read?.unaltered === undefined) await this.#remember(table, NO_LSN);
      const until = read?.unaltered || (await withClient(config, currentPosition));
      // Whatever changed it before it was held must be known before anybody reads it.
      while (this.#options.streamed() < until && !signal.aborted)
        await sleep(POLL_MS, undefined, {signal}).catch(() => {});
      if (signal.aborted || read?.unaltered === undefined) return false;
      connection.close(); // the slot is of no more use, and what follows may take long
      if (settings.FRESHET_SNAPSHOT_VIA === 'kafka') await publisher.applied(table.schema, signal);
      if (signal.aborted) return false;
      return await changes.alone(async () => {
        const newest = changes.applied(table.oid);
        if (!newest || !changes.isCurrent(table)) return true; // another reading is due
        const show = async (): Promise<void> => {
          // What a reading that lost its lock has written may have come behind the horizon of a TRUNCATE.
          await deleteBelow(client, settings, newest.schema, {
            version: (rowVersion(epoch, first, 0) - 1n).toString(),
            commitMicros: (BigInt(Date.now()) * 1000n).toString(),
          });
          await letters.supersede(name, rowVersion(epoch, first, 0));
          await changes.show(newest, first);
        };
        await retrying(`view of ${name}`, show, {log, signal});
        log.info({table: name, position: first.toString()}, `${name} was read`);
        return true;
      });
    } finally {
      connection.close();
    }
  }

  /**
   * What was planned, and partly read, of this very definition before the process ended or the reading failed. The
   * stream has gone on into the same target since then, so that chunks of a later point can join those that are there.
   */
  async #begun({oid, schema}: CapturedTable): Promise<Reading | undefined> {
    const {client, settings, registry, log} = this.#context;
    const row = (await registry.tables()).find(candidate => nameOf(candidate) === schema.name);
    const first = row && readingSince(row);
    if (first === undefined) return undefined;
    const remembered = new SnapshotLog(client, settings, first);
    const planned = (await remembered.load(registry)).find(
      ({table}) => table.oid === oid && table.schema.id === schema.id,
    );
    // Without a chunk nobody would see that its rows were moved; and what the broken one still wrote is of that point.
    if (!planned || planned.finished.size === 0) return undefined;
    const {finished, chunks} = planned;
    log.info(
      {table: schema.name},
      `going on with ${schema.name}: ${finished.size} of ${chunks} chunks were read`,
    );
    return {planned, first, remembered};
  }

  async #begin(postgres: ClientBase, table: CapturedTable, first: Lsn): Promise<Reading> {
    const {client, settings} = this.#context;
    const [planned] = await planChunks(postgres, [table], settings);
    const serverVersion = await readServerVersion(postgres);
    const [source] = await readCatalog(postgres, settings, serverVersion, `c.oid = ${table.oid}`);
    const remembered = new SnapshotLog(client, settings, first);
    // With its files as they are now: what the stream told of it last may be older.
    await remembered.begin([{...planned!, table: capturedTable(table.schema, source ?? table.source)}]);
    await this.#remember(table, first);
    return {planned: planned!, first, remembered};
  }

  /** Writes down at which point the reading of the table began; none where it is to begin anew. */
  async #remember(table: CapturedTable, first: Lsn): Promise<void> {
    const {registry} = this.#context;
    const {changes} = this.#options;
    const {schema} = table;
    await changes.alone(async () => {
      if (!changes.isCurrent(table)) return; // another reading is due
      const row = (await registry.tables()).find(candidate => nameOf(candidate) === schema.name);
      await registry.setTables([schema], 'snapshot', {position: first, reason: row?.reason ?? ''});
    });
  }
}
