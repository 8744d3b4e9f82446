import {readFileSync} from 'node:fs';
import type {Socket} from 'node:net';
import pg, {type ClientBase} from 'pg';
import {type FailureCode, PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type Lsn, parseLsn} from './lsn.ts';

export interface ClientConfig extends pg.ClientConfig {
  /** A question that stays without an answer for so long ends its connection; 0: none does. */
  readonly silenceMs: number;
}

/** How values are written as text. Snapshot, stream, look-ups and `verify` must agree to the byte. */
export const VALUE_SETTINGS: Readonly<Record<string, string>> = {
  timezone: "'UTC'",
  datestyle: "'ISO, YMD'",
  intervalstyle: "'iso_8601'",
  bytea_output: "'hex'",
  extra_float_digits: '1',
  client_encoding: "'UTF8'",
};

export function clientConfig(settings: Settings): ClientConfig {
  const tls = settings.FRESHET_PG_TLS;
  const url = new URL(settings.FRESHET_PG_URL);
  // As a part of the URL: to pg (8.23) a URL without a password says that it is empty, and wins over all beside it.
  if (settings.FRESHET_PG_PASSWORD !== undefined)
    url.searchParams.set('password', settings.FRESHET_PG_PASSWORD);
  return {
    connectionString: url.href,
    // Where it is not said at all, pg goes by PGSSLMODE.
    ssl: tls !== 'off' && {...tlsFiles(settings, 'PG'), rejectUnauthorized: tls === 'verify'},
    application_name: `freshet ${settings.FRESHET_SLOT}`,
    connectionTimeoutMillis: Math.min(15_000, settings.FRESHET_SILENCE_MS),
    silenceMs: settings.FRESHET_SILENCE_MS,
    keepAlive: true,
    // A host that is gone is noticed by the kernel in 20 s, also where nothing is being asked.
    keepAliveInitialDelayMillis: 10_000,
  };
}

/** CA, certificate and key of one server, from the files that the settings name. */
export function tlsFiles(
  settings: Settings,
  server: 'PG' | 'KAFKA' | 'CLICKHOUSE',
): {ca?: Buffer; cert?: Buffer; key?: Buffer} {
  const files = {
    ca: settings[`FRESHET_${server}_TLS_CA`],
    cert: settings[`FRESHET_${server}_TLS_CERT`],
    key: settings[`FRESHET_${server}_TLS_KEY`],
  };
  return Object.fromEntries(
    Object.entries(files).flatMap(([name, file]) => (file === undefined ? [] : [[name, readFileSync(file)]])),
  );
}

const SESSION_SETTINGS: Readonly<Record<string, string>> = {
  ...VALUE_SETTINGS,
  // Nobody's lock is waited for without end; what has to wait longer sets it anew.
  lock_timeout: "'30s'",
  // Compiling the query of the catalog takes seconds (PostgreSQL 15 of Debian), running it milliseconds.
  jit: 'off',
};

/**
 * Lifts what the server, the role or the database sets for sessions in general, for a transaction that takes as long as
 * a table is large. To be called before it begins. PostgreSQL 17 and later have `transaction_timeout`.
 */
export async function liftTimeLimits(client: ClientBase): Promise<void> {
  await client.query(`SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`);
}

/** The part of pg's client that has no public types. */
interface Inner {
  readonly connection: NodeJS.EventEmitter & {readonly stream: Socket};
}
const wireOf = (client: pg.Client): Inner['connection'] => (client as unknown as Inner).connection;

/**
 * Ends the connection when the server leaves a question without a word for so long: a network that swallows everything
 * breaks no connection, and the system would wait for a quarter of an hour, or for ever.
 */
export function giveUpSilence(client: pg.Client, ms: number): void {
  const wire = wireOf(client);
  const {stream} = wire;
  let answered = stream.bytesWritten;
  wire.prependListener('readyForQuery', () => {
    answered = stream.bytesWritten;
  });
  stream.setTimeout(ms);
  stream.on('timeout', () => {
    // Rows of a COPY that are not taken, for a slow target, are no silence.
    if (stream.isPaused()) stream.setTimeout(ms);
    else if (stream.bytesWritten > answered) {
      const {bytesRead} = stream;
      // Where this process itself stood still, the answer is there and only waits to be read.
      setImmediate(() => {
        if (stream.bytesRead === bytesRead)
          stream.destroy(new Error(`timeout expired: no word from the server for ${ms / 1000} s`));
      });
    }
  });
}

const GOODBYE_MS = 1_000;

/** Ends a connection, also one whose server does not answer a goodbye. */
export async function disconnect(client: pg.Client): Promise<void> {
  const late = setTimeout(() => wireOf(client).stream.destroy(), GOODBYE_MS);
  await client.end().catch(() => {});
  clearTimeout(late);
}

/** An ordinary connection with the value settings. The caller ends it. */
export async function connect(config: ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(config);
  client.on('error', () => {}); // the query under way rejects; an idle one must not end the process
  try {
    await client.connect();
    giveUpSilence(client, config.silenceMs);
    await client.query(
      Object.entries(SESSION_SETTINGS)
        .map(([name, value]) => `SET ${name} = ${value}`)
        .join(';'),
    );
    return client;
  } catch (error) {
    await disconnect(client);
    throw asSourceError(error);
  }
}

/** Runs `work` on a connection of its own. */
export async function withClient<T>(
  config: ClientConfig,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = await connect(config);
  try {
    return await work(client);
  } catch (error) {
    throw asSourceError(error);
  } finally {
    await disconnect(client);
  }
}

/** `server_version_num`, such as 180004. */
export async function readServerVersion(client: ClientBase): Promise<number> {
  const {rows} = await client.query<{version: number}>(
    "SELECT current_setting('server_version_num')::int AS version",
  );
  return rows[0]!.version;
}

/** First version with column lists and row filters in publications. */
export const HAS_COLUMN_LISTS = 150_000;

/** A position in the WAL that all that is committed by now lies before. */
export async function currentPosition(client: ClientBase): Promise<Lsn> {
  const {rows} = await client.query<{lsn: string}>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  return parseLsn(rows[0]!.lsn);
}

/** SQLSTATE, its class, or Node's error code → failure. Longer prefixes first. */
const CODES: readonly (readonly [string, FailureCode])[] = [
  ['42501', 'pg.permission'],
  ['42704', 'pg.slot_lost'], // undefined_object: the slot is gone
  ['55006', 'pg.slot_active'],
  ['55000', 'pg.slot_lost'], // "can no longer get changes from replication slot"
  ['55P03', 'pg.locked'],
  ['40P01', 'pg.locked'],
  ['57014', 'pg.slot_blocked'],
  ['25P03', 'pg.unavailable'], // idle_in_transaction_session_timeout ended the session
  ['25P04', 'pg.unavailable'], // transaction_timeout did
  ['28', 'pg.auth'],
  ['08', 'pg.unavailable'],
  ['53', 'pg.unavailable'],
  ['57P', 'pg.unavailable'],
  // OpenSSL's words for a certificate that is not trusted, is for another host, or has run out.
  ['DEPTH_ZERO', 'pg.auth'],
  ['SELF_SIGNED', 'pg.auth'],
  ['UNABLE_TO_', 'pg.auth'],
  ['CERT_', 'pg.auth'],
  ['ERR_TLS', 'pg.auth'],
  ['ECONN', 'pg.unavailable'],
  ['ENOTFOUND', 'pg.unavailable'],
  ['EAI_AGAIN', 'pg.unavailable'],
  ['EPIPE', 'pg.unavailable'],
  ['ETIMEDOUT', 'pg.unavailable'],
  ['EHOST', 'pg.unavailable'],
];

/** pg gives these without a code (pg 8.23). */
const WORDS =
  /connection terminated|timeout expired|client has encountered a connection error|not queryable/i;

/** The connection that exported a snapshot is gone, and with it the snapshot (22023 up to PostgreSQL 15, 42704 after). */
const SNAPSHOT_GONE = /^(invalid snapshot identifier|snapshot .* does not exist)/;

/** What the catalog named a moment ago is not there any more, or has another name. */
const GONE =
  /^(could not open relation with OID|cache lookup failed for|(column|relation|schema|type) .* does not exist)/;

/** SQLSTATE: the table, its schema or one of its columns has another name by now, or is gone. */
export const RENAMED: ReadonlySet<string> = new Set(['42P01', '3F000', '42703']);

export function asSourceError(error: unknown): PipelineError {
  if (error instanceof PipelineError) return error;
  const {code = '', message = String(error)} = error as {code?: string; message?: string};
  const found = GONE.test(message)
    ? 'pg.schema_changed'
    : SNAPSHOT_GONE.test(message)
      ? 'pg.unavailable'
      : CODES.find(([prefix]) => code.startsWith(prefix))?.[1];
  const known = found ?? (WORDS.test(message) ? 'pg.unavailable' : 'pg.query');
  return new PipelineError(known, `PostgreSQL: ${message}${code ? ` (${code})` : ''}`, {cause: error});
}
