import {randomBytes} from 'node:crypto';
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
  /** Bytes that can be written until the slot loses WAL; null where there is no limit. */
  safeBytes: z.string().nullable(),
  /** Why it is of no use any more; known to PostgreSQL 17 and later. */
  invalidationReason: z.string().nullable(),
  /** Kept on standbys too; known to PostgreSQL 17 and later. */
  failover: z.boolean(),
});
export type SlotRow = z.infer<typeof SlotRow>;

/** The slot as the server has it; undefined where there is none. */
export async function readSlot(client: ClientBase, slot: string): Promise<SlotRow | undefined> {
  const {rows} = await client.query(
    `SELECT active, active_pid AS "activePid", wal_status AS "walStatus",
       confirmed_flush_lsn::text AS "confirmedFlush",
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text AS "retainedBytes", safe_wal_size::text AS "safeBytes",
       to_jsonb(s) ->> 'invalidation_reason' AS "invalidationReason",
       coalesce(to_jsonb(s) ->> 'failover', 'false')::boolean AS failover
     FROM pg_replication_slots s WHERE slot_name = $1`,
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
 * Creates the slot anew; a temporary one goes with the connection, and must have a name of its own. Throws
 * `pg.slot_blocked`, naming them, where older transactions keep it from being made for `timeoutMs`.
 * (statement_timeout does not hold for commands of the replication protocol.)
 */
export async function createSlot(
  client: ClientBase,
  connection: ReplicationConnection,
  slot: string,
  timeoutMs = SLOT_TIMEOUT_MS,
  {temporary = false, failover = false}: {temporary?: boolean; failover?: boolean} = {},
): Promise<CreatedSlot> {
  if (!temporary) await dropSlot(client, slot);
  const late = Promise.withResolvers<never>();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    blockers(client, slot).then(
      names =>
        late.reject(
          new PipelineError('pg.slot_blocked', `slot ${slot} waits for older transactions: ${names}`),
        ),
      late.reject,
    );
  }, timeoutMs);
  try {
    const making = connection.createSlot(slot, {temporary, failover}).catch(error => {
      // When it is late, its backend is ended by ourselves: who held it up is to be told, not that.
      if (isLate) return late.promise;
      throw error;
    });
    return await Promise.race([making, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** A slot that goes with the connection, under a name of its own that begins as the pipeline's. Throws as `createSlot`. */
export const createTemporarySlot = (
  client: ClientBase,
  connection: ReplicationConnection,
  slot: string,
): Promise<CreatedSlot> => {
  const name = `${slot.slice(0, 40)}_${randomBytes(8).toString('hex')}`;
  return createSlot(client, connection, name, SLOT_TIMEOUT_MS, {temporary: true});
};

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
