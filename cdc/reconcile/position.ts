import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {type Lsn, parseLsn} from '../source/lsn.ts';
import {clientConfig, withClient} from '../source/postgres.ts';

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

/** Tables that are not yet complete up to the position, with what is known of why. */
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
     FROM (SELECT * FROM ${table('_tables')} FINAL) AS t
     LEFT JOIN (SELECT * FROM ${table('_watermarks')} FINAL) AS w USING (schema_name, table_name)
     ORDER BY name`,
  );
  if (found.length === 0) return [NOTHING];
  return found.filter(row => row.state !== 'streaming' || BigInt(row.position) < position);
}

/**
 * Resolves when ClickHouse shows every table complete up to what PostgreSQL had committed when this was called.
 * Throws `ch.rejected` where a table is parked, and `ch.unavailable` after `timeoutMs`; rejects when the signal aborts.
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
    const behind = await tablesBehind(client, settings, position).catch(notSetUp);
    if (behind.length === 0) return position;
    const parked = behind.find(({state}) => state === 'parked');
    if (parked)
      throw new PipelineError('ch.rejected', `${parked.name} is parked: ${parked.reason}`, {
        table: parked.name,
      });
    if (Date.now() > deadline) {
      const names = behind.map(({name, state}) => `${name} (${state})`).join(', ');
      throw new PipelineError('ch.unavailable', `not caught up after ${timeoutMs / 1000} s: ${names}`);
    }
    await sleep(100, undefined, {signal});
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
