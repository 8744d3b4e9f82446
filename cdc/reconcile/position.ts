import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {lettersText, openLetters} from '../sink/dead-letters.ts';
import {nameOf, Registry} from '../sink/registry.ts';
import {CAPTURABLE, nameMatcher, tableChooser} from '../source/catalog.ts';
import {type Lsn, parseLsn} from '../source/lsn.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {tableName} from '../source/table-schema.ts';

/** A table with a change that is not applied goes on, but is complete no further. */
const STUCK = 'incomplete';

const Behind = z.object({name: z.string(), state: z.string(), reason: z.string(), position: z.string()});
export type Behind = z.infer<typeof Behind>;

/** Marks the end of the WAL with a message of the stream: all that is committed by now lies before it. */
export async function markPosition(settings: Settings): Promise<Lsn> {
  return withClient(clientConfig(settings), async client => {
    const {rows: found} = await client.query<{lsn: string}>(
      "SELECT pg_logical_emit_message(true, 'freshet', '')::text AS lsn",
    );
    return parseLsn(found[0]!.lsn);
  });
}

/**
 * Tables that are not yet complete up to the position, with what is known of why. Where there are none: tables that
 * are there to be captured, and that the pipeline has not heard of yet.
 */
export async function allBehind(
  client: ClickHouseClient,
  settings: Settings,
  position: Lsn,
): Promise<Behind[]> {
  const behind = await tablesBehind(client, settings, position);
  return behind.length > 0 ? behind : untold(client, settings);
}

/** Tables that are captured, and not yet complete up to the position, with what is known of why. */
export async function tablesBehind(
  client: ClickHouseClient,
  settings: Settings,
  position: Lsn,
): Promise<Behind[]> {
  const table = (name: string): string => chName(settings.FRESHET_CLICKHOUSE_DATABASE, name);
  const found = await rows(
    client,
    Behind,
    `SELECT concat(t.schema_name, '.', t.table_name) AS name, t.state AS state, t.reason AS reason, toString(w.position) AS position
     FROM (SELECT * FROM ${table('_tables')} FINAL WHERE state <> 'dropped') AS t
     LEFT JOIN (SELECT * FROM ${table('_watermarks')} FINAL) AS w USING (schema_name, table_name)
     ORDER BY name`,
  );
  if (found.length === 0) return [NOTHING];
  const letters = await openLetters(client, settings);
  const goesOn = nameMatcher(settings.FRESHET_DEAD_LETTER_TABLES);
  return found
    .filter(row => row.state !== 'streaming' || BigInt(row.position) < position)
    .map(row => {
      const open = letters.get(row.name);
      if (!open || row.state !== 'streaming') return row;
      // Any other table is going to be parked.
      return {
        ...row,
        state: goesOn(row.name) ? STUCK : row.state,
        reason: `${lettersText(open)}; freshet dead-letter list ${row.name}`,
      };
    });
}

async function untold(client: ClickHouseClient, settings: Settings): Promise<Behind[]> {
  const known = new Set(
    (await new Registry(client, settings).tables()).filter(({state}) => state !== 'dropped').map(nameOf),
  );
  const chosen = tableChooser(settings);
  const {rows: found} = await withClient(clientConfig(settings), postgres =>
    postgres.query<{schema: string; table: string}>(
      `SELECT n.nspname AS schema, c.relname AS table FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${CAPTURABLE}`,
    ),
  );
  return found
    .filter(chosen)
    .map(({schema, table}) => tableName(schema, table))
    .filter(name => !known.has(name))
    .map(name => ({name, state: 'new', reason: 'the pipeline has not heard of it yet', position: '0'}));
}

/**
 * Resolves when ClickHouse shows every table complete up to what PostgreSQL had committed when this was called.
 * Throws `ch.rejected` where a table is parked or has dead letters, and `ch.unavailable` after `timeoutMs`; rejects when the signal aborts.
 */
export async function caughtUp(
  client: ClickHouseClient,
  settings: Settings,
  timeoutMs = 120_000,
  signal?: AbortSignal,
): Promise<Lsn> {
  const position = await markPosition(settings);
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const behind = await allBehind(client, settings, position).catch(notSetUp);
    if (behind.length === 0) return position;
    // While others are behind too, what parked it may be mended a little later in the stream.
    const still = behind.every(({state}) => state === 'parked' || state === STUCK) ? behind[0] : undefined;
    if (still)
      throw new PipelineError('ch.rejected', `${still.name} is ${still.state}: ${still.reason}`, {
        table: still.name,
      });
    if (Date.now() > deadline) {
      const names = behind.map(({name, state}) => `${name} (${state})`).join(', ');
      throw new PipelineError('ch.unavailable', `not caught up after ${timeoutMs / 1000} s: ${names}`);
    }
    await sleep(100, undefined, {signal});
  }
}

const POLL_MS = 100;

/**
 * Waits until ClickHouse shows one table up to what PostgreSQL has committed by now. Gives '', or why it does not:
 * the table is parked or has dead letters, or the deadline (ms since 1970) has passed.
 */
export async function waitForTable({
  client,
  settings,
  name,
  deadline,
}: {
  client: ClickHouseClient;
  settings: Settings;
  name: string;
  deadline: number;
}): Promise<string> {
  const position = await markPosition(settings);
  for (;;) {
    const own = (await tablesBehind(client, settings, position)).find(table => table.name === name);
    if (!own) return '';
    if (own.state === 'parked' || own.state === STUCK) return `it is ${own.state}: ${own.reason}`;
    if (Date.now() > deadline) return `ClickHouse is behind (${own.reason || own.state})`;
    await sleep(POLL_MS);
  }
}

/** Before the pipeline has made its tables, or told of one, everything is behind. */
const NOTHING: Behind = {
  name: 'no table',
  state: 'unknown',
  reason: 'the pipeline has not started',
  position: '0',
};

function notSetUp(error: unknown): Behind[] {
  if (error instanceof PipelineError && error.code === 'ch.not_set_up') return [NOTHING];
  throw error;
}
