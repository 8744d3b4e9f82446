import type {Socket} from 'node:net';
import pg from 'pg';
import {PipelineError} from '../failures.ts';
import {formatLsn, type Lsn, NO_LSN, parseLsn, toPostgresMicros} from './lsn.ts';
import {asSourceError, type ClientConfig, giveUpSilence, liftTimeLimits, VALUE_SETTINGS} from './postgres.ts';
import {pgLiteral, pgName} from './table-schema.ts';

/** The part of pg's Connection that carries the COPY-both protocol; it has no public types. */
interface Wire {
  readonly stream: Socket;
  on(event: 'copyData', listener: (message: {chunk: Buffer}) => void): void;
  once(event: 'copyBothResponse', listener: () => void): void;
  sendCopyFromChunk(chunk: Buffer): void;
}

export interface StreamHandlers {
  /** One XLogData payload, `frame[start]` to its end. The frame is only valid during the call. */
  onData(walStart: Lsn, frame: Buffer, start: number): void;
  /** The server's position in the WAL; `replyRequested` wants a status update at once. */
  onKeepalive(walEnd: Lsn, replyRequested: boolean): void;
}

export interface StreamOptions extends StreamHandlers {
  readonly slot: string;
  readonly publication: string;
  readonly signal: AbortSignal;
  /** Large transactions come while they are still open, by protocol 2. */
  readonly streaming?: boolean;
}

/** What changes come from: the connection itself, or what puts those of open transactions in order before. */
export type ChangeStream = Pick<
  ReplicationConnection,
  'stream' | 'sendStatus' | 'pause' | 'resume' | 'close'
>;

export interface CreatedSlot {
  readonly consistentPoint: Lsn;
  readonly snapshotName: string;
}

const STATUS_BYTES = 34;

/**
 * A walsender connection by `pg`. The package pg-logical-replication is not used for it: it acknowledges by a timer
 * what was received, resumes from there, and cannot escape names or send all options; it serves as the decoder's
 * oracle in tests instead.
 */
export class ReplicationConnection {
  readonly #client: pg.Client;
  readonly #wire: Wire;

  private constructor(client: pg.Client) {
    this.#client = client;
    this.#wire = (client as unknown as {connection: Wire}).connection;
  }

  static async connect(config: ClientConfig): Promise<ReplicationConnection> {
    const client = new pg.Client({...config, replication: 'database'} as pg.ClientConfig);
    // Without a listener an error of an idle connection would end the process; `stream` reports its own.
    client.on('error', () => {});
    try {
      await client.connect();
      giveUpSilence(client, config.silenceMs);
      await liftTimeLimits(client); // a snapshot that is exported holds a transaction open
      // The walsender writes values by these settings; the snapshot's connections use the same.
      for (const [name, value] of Object.entries(VALUE_SETTINGS))
        await client.query(`SET ${name} = ${value}`);
    } catch (error) {
      throw asSourceError(error);
    }
    return new ReplicationConnection(client);
  }

  /** `position` is up to where the server's WAL is on its disk. */
  async identify(): Promise<{systemIdentifier: string; timeline: number; position: Lsn}> {
    const row = await this.#one('IDENTIFY_SYSTEM');
    return {
      systemIdentifier: String(row.systemid),
      timeline: Number(row.timeline),
      position: parseLsn(String(row.xlogpos)),
    };
  }

  /**
   * Creates a slot and exports the snapshot of its consistent point, which lives until this connection's next
   * command. It waits for all transactions that are older. A temporary slot goes with this connection; its name
   * must be its own, because no two slots of a server have one.
   */
  async createSlot(
    slot: string,
    {temporary = false, failover = false}: {temporary?: boolean; failover?: boolean} = {},
  ): Promise<CreatedSlot> {
    this.#wire.stream.setTimeout(0); // whoever waits for it decides for how long
    // Exporting the snapshot is the default; the words for it are others in PostgreSQL 14.
    const row = await this.#one(
      `CREATE_REPLICATION_SLOT ${pgName(slot)} ${temporary ? 'TEMPORARY ' : ''}LOGICAL pgoutput${failover ? ' (FAILOVER true)' : ''}`,
    );
    return {
      consistentPoint: parseLsn(String(row.consistent_point)),
      snapshotName: String(row.snapshot_name),
    };
  }

  /** Has a slot that exists kept on standbys too. */
  async setFailover(slot: string): Promise<void> {
    await this.#one(`ALTER_REPLICATION_SLOT ${pgName(slot)} (FAILOVER true)`);
  }

  /**
   * Streams until the signal aborts or the connection ends; rejects where it ends by itself. The server goes on from
   * its own `confirmed_flush_lsn`. Handlers that throw end the stream: nothing is passed over.
   */
  async stream({
    slot,
    publication,
    signal,
    streaming = false,
    onData,
    onKeepalive,
  }: StreamOptions): Promise<void> {
    if (signal.aborted) return;
    const sql =
      `START_REPLICATION SLOT ${pgName(slot)} LOGICAL ${formatLsn(NO_LSN)} (` +
      `${streaming ? "proto_version '2', streaming 'on'" : "proto_version '1'"}, ` +
      `publication_names ${pgLiteral(pgName(publication))}, messages 'true')`;
    const {promise, resolve, reject} = Promise.withResolvers<void>();
    let over = false; // a signal of several others takes long to say so
    const stop = (): void => {
      over = true;
      resolve();
    };
    signal.addEventListener('abort', stop, {once: true});
    this.#client.once('end', () => reject(new PipelineError('pg.unavailable', 'the walsender hung up')));
    this.#wire.on('copyData', ({chunk}) => {
      // More frames can lie in the same piece of the socket: behind one that failed none counts, its commit above all.
      if (over) return;
      try {
        if (chunk[0] === 0x77) onData(chunk.readBigUInt64BE(1) as Lsn, chunk, 25);
        else if (chunk[0] === 0x6b) onKeepalive(chunk.readBigUInt64BE(1) as Lsn, chunk[17] === 1);
        else throw new PipelineError('pg.protocol', `a replication message ${chunk[0]}`);
      } catch (error) {
        over = true;
        reject(error);
      }
    });
    this.#client.query(sql).then(
      () => reject(new PipelineError('pg.unavailable', 'the walsender ended the stream')),
      error => reject(asSourceError(error)),
    );
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  /** Tells the server what is durable here. `flushed` must never go backwards. */
  sendStatus(flushed: Lsn, replyNow = false): void {
    const status = Buffer.allocUnsafe(STATUS_BYTES);
    status[0] = 0x72; // r
    for (const offset of [1, 9, 17]) status.writeBigUInt64BE(flushed, offset);
    status.writeBigInt64BE(toPostgresMicros(BigInt(Date.now()) * 1000n), 25);
    status[33] = replyNow ? 1 : 0;
    this.#wire.sendCopyFromChunk(status);
  }

  /** Back-pressure: the kernel's buffers fill up and the walsender waits. Status updates can still be sent. */
  pause(): void {
    this.#wire.stream.pause();
  }
  resume(): void {
    this.#wire.stream.resume();
  }

  /** Ends without waiting: a walsender that streams does not read a goodbye. */
  close(): void {
    this.#wire.stream.destroy();
  }

  async #one(sql: string): Promise<Record<string, unknown>> {
    try {
      const {rows} = await this.#client.query<Record<string, unknown>>(sql);
      return rows[0] ?? {};
    } catch (error) {
      throw asSourceError(error);
    }
  }
}
