import type pg from 'pg';
import {z} from 'zod';
import type {Log} from '../observe/log.ts';
import {type Lsn, NO_LSN, parseLsn} from './lsn.ts';
import {asSourceError, type ClientConfig, connect, disconnect} from './postgres.ts';

const Reading = z.object({lsn: z.string(), micros: z.string()});
/** Ticks that a reading may wait before a message is written to push the stream past it. */
const PATIENCE = 3;

/**
 * Reads pairs of position and time from the server: what was committed before the time lies before the position. When
 * the stream has passed the position it is complete up to the time, with nothing written to an idle database. Where
 * the tail of the WAL is not sent (it ends in a record that no commit flushes), a logical message is.
 */
export class WalClock {
  readonly #client: pg.Client;
  readonly #slot: string;
  readonly #log: Log;
  #reading: {lsn: Lsn; micros: bigint} | undefined;
  #waited = 0;
  #busy = false;

  private constructor(client: pg.Client, slot: string, log: Log) {
    this.#client = client;
    this.#slot = slot;
    this.#log = log;
  }

  static async start(config: ClientConfig, slot: string, log: Log): Promise<WalClock> {
    return new WalClock(await connect({...config, query_timeout: 10_000}), slot, log);
  }

  /**
   * To be called about once a second; `idle` where the stream has nothing outstanding. Rejects where the connection is
   * lost: an idle database would be complete up to that time for ever.
   */
  async tick(idle: boolean): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      await this.#read(idle);
    } catch (thrown) {
      const error = asSourceError(thrown);
      if (error.code === 'pg.unavailable') throw error;
      this.#log.debug({error: String(error)}, 'the position of the server could not be read');
    } finally {
      this.#busy = false;
    }
  }

  async #read(idle: boolean): Promise<void> {
    if (this.#reading && idle && ++this.#waited > PATIENCE) {
      this.#waited = 0;
      await this.#client.query("SELECT pg_logical_emit_message(true, 'freshet', '')");
      return;
    }
    if (this.#reading) return;
    const {rows} = await this.#client.query(
      // The time is read first: what commits between the two is before the position all the same.
      `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS micros, pg_current_wal_insert_lsn()::text AS lsn`,
    );
    const {lsn, micros} = Reading.parse(rows[0]);
    this.#reading = {lsn: parseLsn(lsn), micros: BigInt(micros)};
    this.#waited = 0;
  }

  /** Will the next checkpoint throw away WAL that the slot needs? */
  async slotAtRisk(): Promise<boolean> {
    const {rowCount} = await this.#client.query(
      "SELECT FROM pg_replication_slots WHERE slot_name = $1 AND wal_status IN ('unreserved', 'lost')",
      [this.#slot],
    );
    return rowCount === 1;
  }

  /** The reading that a stream at this position has passed; each is given once. */
  reached(position: Lsn): {lsn: Lsn; micros: bigint} | undefined {
    const reading = this.#reading;
    if (!reading || position === NO_LSN || position < reading.lsn) return undefined;
    this.#reading = undefined;
    return reading;
  }

  async close(): Promise<void> {
    await disconnect(this.#client);
  }
}
