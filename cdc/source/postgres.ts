import {readFileSync} from 'node:fs';
import pg from 'pg';
import {type FailureCode, PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';

export type ClientConfig = pg.ClientConfig;

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
  return {
    connectionString: settings.FRESHET_PG_URL,
    ...(settings.FRESHET_PG_PASSWORD === undefined ? {} : {password: settings.FRESHET_PG_PASSWORD}),
    ...(tls === 'off' ? {} : {ssl: {...tlsFiles(settings, 'PG'), rejectUnauthorized: tls === 'verify'}}),
    application_name: `freshet ${settings.FRESHET_SLOT}`,
    connectionTimeoutMillis: 15_000,
    keepAlive: true,
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

/** An ordinary connection with the value settings. The caller ends it. */
export async function connect(config: ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(config);
  client.on('error', () => {}); // the query under way rejects; an idle one must not end the process
  try {
    await client.connect();
    await client.query(
      Object.entries(VALUE_SETTINGS)
        .map(([name, value]) => `SET ${name} = ${value}`)
        .join(';'),
    );
    return client;
  } catch (error) {
    await client.end().catch(() => {});
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
    await client.end().catch(() => {});
  }
}

/** SQLSTATE, its class, or Node's error code → failure. Longer prefixes first. */
const CODES: readonly (readonly [string, FailureCode])[] = [
  ['42501', 'pg.permission'],
  ['42704', 'pg.slot_lost'], // undefined_object: the slot is gone
  ['55006', 'pg.slot_active'],
  ['55000', 'pg.slot_lost'], // "can no longer get changes from replication slot"
  ['57014', 'pg.slot_blocked'],
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

export function asSourceError(error: unknown): PipelineError {
  if (error instanceof PipelineError) return error;
  const {code = '', message = String(error)} = error as {code?: string; message?: string};
  const found = CODES.find(([prefix]) => code.startsWith(prefix))?.[1];
  const known = found ?? (WORDS.test(message) ? 'pg.unavailable' : 'pg.query');
  return new PipelineError(known, `PostgreSQL: ${message}${code ? ` (${code})` : ''}`, {cause: error});
}
