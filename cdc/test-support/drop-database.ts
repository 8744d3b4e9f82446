import {setTimeout as sleep} from 'node:timers/promises';
import type pg from 'pg';

/** With all slots of it; a walsender whose reader is gone, and a busy server, may need a moment. */
export async function dropDatabase(admin: pg.Client, database: string): Promise<void> {
  const slots = 'pg_replication_slots WHERE database = $1';
  for (;;) {
    const {rows: active} = await admin.query(
      `SELECT pg_terminate_backend(active_pid) FROM ${slots} AND active`,
      [database],
    );
    if (active.length === 0) break;
    await sleep(20);
  }
  await admin.query(`SELECT pg_drop_replication_slot(slot_name) FROM ${slots}`, [database]);
  for (let attempt = 0; ; attempt++) {
    try {
      await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
      return;
    } catch (error) {
      // object_in_use: FORCE gives the others five seconds.
      if ((error as {code?: string}).code !== '55006' || attempt === 5) throw error;
    }
  }
}
