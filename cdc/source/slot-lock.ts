import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {clientConfig, connect, disconnect} from './postgres.ts';

const Taken = z.object({held: z.boolean(), holder: z.number().nullable(), silenceMs: z.number()});

/**
 * A process that hangs loses the lock as it loses the slot: after the silence that a walsender bears. `pg_locks` shows
 * a key's halves apart.
 */
const TAKE = `
  SELECT pg_try_advisory_lock(key) AS held,
    (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (classid::bigint << 32) | objid::bigint = key LIMIT 1) AS holder,
    set_config('idle_session_timeout', current_setting('wal_sender_timeout'), false) AS "idleTimeout",
    (SELECT setting::int FROM pg_settings WHERE name = 'wal_sender_timeout') AS "silenceMs"
  FROM hashtextextended('freshet slot ' || $1, 0) AS key`;

/** Where silence is borne without end. */
const BEAT_MS = 20_000;

/**
 * Runs `work` while an advisory lock of PostgreSQL says that the slot, and all that is written down of it, is this
 * process's: a walsender that streams keeps others from the slot alone, and not before it streams. Throws
 * `pg.slot_active` where the lock is another's. When its connection is lost the signal aborts, and `pg.unavailable` is
 * thrown.
 */
export async function holdingSlot<C extends {settings: Settings; signal: AbortSignal}>(
  context: C,
  work: (context: C) => Promise<void>,
): Promise<void> {
  const {settings, signal} = context;
  const slot = settings.FRESHET_SLOT;
  const client = await connect(clientConfig(settings));
  const lost = new AbortController();
  client.once('end', () =>
    lost.abort(new PipelineError('pg.unavailable', `the connection that held slot ${slot} is gone`)),
  );
  let beat: NodeJS.Timeout | undefined;
  try {
    const {held, holder, silenceMs} = Taken.parse((await client.query(TAKE, [slot])).rows[0]);
    if (!held)
      throw new PipelineError('pg.slot_active', `slot ${slot} is held by PID ${holder ?? 'unknown'}`);
    beat = setInterval(
      () => client.query('SELECT 1').catch(() => {}),
      silenceMs > 0 ? silenceMs / 3 : BEAT_MS,
    );
    await work({...context, signal: AbortSignal.any([signal, lost.signal])});
    lost.signal.throwIfAborted();
  } catch (error) {
    throw lost.signal.aborted ? lost.signal.reason : error;
  } finally {
    clearInterval(beat);
    await disconnect(client);
  }
}
