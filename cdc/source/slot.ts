import type {ClientBase} from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import {asSourceError} from './postgres.ts';
import type {CreatedSlot, ReplicationConnection} from './replication-connection.ts';

const SlotRow = z.object({
  active: z.boolean(),
  activePid: z.number().nullable(),
  walStatus: z.string().nullable(),
  confirmedFlush: z.string().nullable(),
  retainedBytes: z.string().nullable(),
  safeBytes: z.string().nullable(),
});
export type SlotRow = z.infer<typeof SlotRow>;

/** The slot as the server has it; undefined where there is none. */
export async function readSlot(client: ClientBase, slot: string): Promise<SlotRow | undefined> {
  const {rows} = await client.query(
    `SELECT active, active_pid AS "activePid", wal_status AS "walStatus",
       confirmed_flush_lsn::text AS "confirmedFlush",
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text AS "retainedBytes", safe_wal_size::text AS "safeBytes"
     FROM pg_replication_slots WHERE slot_name = $1`,
    [slot],
  );
  return rows.length === 0 ? undefined : SlotRow.parse(rows[0]);
}

/** Drops the slot where it exists. `pg.slot_active` where another process reads it. */
export async function dropSlot(client: ClientBase, slot: string): Promise<boolean> {
  try {
    const {rows} = await client.query(
      'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1',
      [slot],
    );
    return rows.length > 0;
  } catch (error) {
    throw asSourceError(error);
  }
}

/** How long a new slot waits for transactions that are older than it. */
const SLOT_TIMEOUT_MS = 60_000;

/**
 * Creates the slot anew. Throws `pg.slot_blocked`, naming them, where older transactions keep it from being made for
 * `timeoutMs`. (statement_timeout does not hold for commands of the replication protocol.)
 */
export async function createSlot(
  client: ClientBase,
  connection: ReplicationConnection,
  slot: string,
  timeoutMs = SLOT_TIMEOUT_MS,
): Promise<CreatedSlot> {
  await dropSlot(client, slot);
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    blockers(client, slot).then(
      names =>
        late.reject(
          new PipelineError('pg.slot_blocked', `slot ${slot} waits for older transactions: ${names}`),
        ),
      late.reject,
    );
  }, timeoutMs);
  try {
    const making = connection.createSlot(slot);
    making.catch(() => {}); // when it is late, the connection is closed under it
    return await Promise.race([making, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Who holds the slot up; the backend that waits for them is ended, and its half-made slot goes with it. */
async function blockers(client: ClientBase, slot: string): Promise<string> {
  const {rows} = await client.query<{pid: number; age: string; usename: string | null}>(
    `SELECT pid, usename, date_trunc('second', now() - xact_start)::text AS age FROM pg_stat_activity
     WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 5`,
  );
  await client.query(
    'SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active',
    [slot],
  );
  return (
    rows.map(({pid, age, usename}) => `pid ${pid} (${usename}, open for ${age})`).join(', ') || 'unknown'
  );
}
