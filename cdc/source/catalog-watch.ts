import type pg from 'pg';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {type CatalogTable, describeLocked, lasting, readCatalog} from './catalog.ts';
import {asSourceError, type ClientConfig, connect, disconnect} from './postgres.ts';
import {messagePrefix, type SchemaMessage, triggersInForceSql} from './schema-messages.ts';

const EVERY_MS = 2_000;
/** On a large catalog the watch takes at most this share of the time. */
const SHARE = 0.05;

/**
 * Looks at the catalog from time to time and announces what changed by a message of its own. Without the event
 * triggers this is how a change that no row follows is found at all; beside them it finds what they cannot tell, such
 * as the TRUNCATE of a single partition.
 */
export class CatalogWatch {
  readonly #client: pg.Client;
  readonly #settings: Settings;
  readonly #serverVersion: number;
  readonly #log: Log;
  /** OID → its description when it was announced last. */
  readonly #known: Map<number, string>;
  #busy = false;
  #next = Number.NEGATIVE_INFINITY;

  private constructor(
    client: pg.Client,
    options: {settings: Settings; serverVersion: number; log: Log; known: readonly CatalogTable[]},
  ) {
    this.#client = client;
    this.#settings = options.settings;
    this.#serverVersion = options.serverVersion;
    this.#log = options.log;
    this.#known = new Map(options.known.map(table => [table.oid, lasting(table)]));
  }

  /** @param options.known the tables as the pipeline has them at the start. */
  static async start(
    config: ClientConfig,
    options: {settings: Settings; serverVersion: number; log: Log; known: readonly CatalogTable[]},
  ): Promise<CatalogWatch> {
    return new CatalogWatch(await connect({...config, query_timeout: 60_000}), options);
  }

  /**
   * To be called about once a second. Rejects where the connection is lost: nothing more would be noticed.
   * @param unconfirmed OIDs that are announced again; they are taken out.
   */
  async tick(unconfirmed: Set<number>): Promise<void> {
    if (this.#busy || performance.now() < this.#next) return;
    this.#busy = true;
    for (const oid of unconfirmed) this.#known.set(oid, '');
    unconfirmed.clear();
    const startedAt = performance.now();
    try {
      await this.#look();
    } catch (thrown) {
      const error = asSourceError(thrown);
      if (error.code === 'pg.unavailable') throw error;
      // A table that is being altered right now is looked at again the next time.
      this.#log.debug({error: String(error)}, 'the catalog could not be read');
    } finally {
      this.#busy = false;
      this.#next = performance.now() + Math.max(EVERY_MS, (performance.now() - startedAt) / SHARE);
    }
  }

  async #look(): Promise<void> {
    const found = await readCatalog(this.#client, this.#settings, this.#serverVersion);
    const changed = found.filter(table => this.#known.get(table.oid) !== lasting(table)).map(({oid}) => oid);
    const gone = [...this.#known.keys()].filter(oid => found.every(table => table.oid !== oid));
    if (changed.length + gone.length === 0) return;
    const {rows} = await this.#client.query<{inForce: boolean | null}>(triggersInForceSql(this.#settings));
    const named = [...changed, ...gone];
    const describe = async (tables: CatalogTable[]): Promise<void> => {
      const message: SchemaMessage = {tables, named, late: true, watched: rows[0]?.inForce === true};
      await this.#client.query('SELECT pg_logical_emit_message(true, $1, $2)', [
        messagePrefix(this.#settings),
        JSON.stringify(message),
      ]);
    };
    const {tables} = await describeLocked(this.#client, this.#settings, this.#serverVersion, named, describe);
    for (const oid of gone) this.#known.delete(oid);
    for (const table of tables) this.#known.set(table.oid, lasting(table));
  }

  async close(): Promise<void> {
    await disconnect(this.#client);
  }
}
