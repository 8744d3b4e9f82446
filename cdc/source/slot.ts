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

/** Creates the slot anew. Where older transactions keep it from being made, the error names them. */
export async function createSlot(
  client: ClientBase,
  connection: ReplicationConnection,
  slot: string,
): Promise<CreatedSlot> {
  await dropSlot(client, slot);
  try {
    return await connection.createSlot(slot, SLOT_TIMEOUT_MS);
  } catch (thrown) {
    const error = asSourceError(thrown);
    if (error.code !== 'pg.slot_blocked') throw error;
    const {rows} = await client.query<{pid: number; age: string; usename: string | null}>(
      `SELECT pid, usename, date_trunc('second', now() - xact_start)::text AS age FROM pg_stat_activity
       WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() ORDER BY xact_start LIMIT 5`,
    );
    const blockers = rows.map(({pid, age, usename}) => `pid ${pid} (${usename}, open for ${age})`).join(', ');
    throw new PipelineError(
      'pg.slot_blocked',
      `slot ${slot} waits for older transactions: ${blockers || 'unknown'}`,
    );
  }
}
