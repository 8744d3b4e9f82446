import {setTimeout as sleep} from 'node:timers/promises';
import type pg from 'pg';
import {send} from '../stack/end-process.ts';
import {askPostgres, type Ground, pause, type System, type Working, type Written} from './ground.ts';
import type {Usage, Values} from './stages.ts';

/** A run that has not ended by then has failed: 1,000 changes a second, and what it takes to begin, a table at a time. */
export const patience = ({workload}: Ground, changes: number): number =>
  180_000 + changes + 1_000 * workload.tables.length;

/** Starts the system and stops it, however the work ends; a run whose rows are wrong rejects. */
export async function atWork(
  ground: Ground,
  system: System,
  work: (working: Working) => Promise<Values>,
): Promise<Values> {
  const working = await system.start(ground);
  try {
    const values = await orFailed(working, work(working));
    await orFailed(working, working.verify?.() ?? Promise.resolve());
    return values;
  } finally {
    await working.stop();
  }
}

/** Whatever comes first: the answer, or the end of a process that should not end. */
export const orFailed = <T>({failed}: Working, work: Promise<T>): Promise<T> => Promise.race([work, failed]);

const itself = (table: string): string => table;

/** Writes changes as the workload does. */
export async function write({world, workload}: Ground, first: number, last: number): Promise<void> {
  for (const statement of workload.write(first, last)) await world.pg.query(statement);
}

/** What PostgreSQL has by now. */
export async function written({world, workload}: Ground, last: number): Promise<Written> {
  const {rows: found} = await world.pg.query<{lsn: string}>('SELECT pg_current_wal_lsn()::text AS lsn');
  return {
    last,
    changes: last,
    position: found[0]!.lsn,
    tail: await askPostgres(world, workload.tail(last, itself)),
    whole: await askPostgres(world, workload.whole(itself)),
  };
}

/**
 * Asks until all has arrived. The time and the usage are those before the question that was answered with yes: what
 * it saw was there by then.
 */
export async function timeUntil(
  working: Working,
  goal: Written,
  withinMs: number,
  usageNow: () => Promise<Usage> = async () => ({}),
  since = performance.now(),
): Promise<{seconds: number; usage: Usage}> {
  for (;;) {
    const passed = performance.now() - since;
    const usage = await usageNow();
    if (await orFailed(working, working.arrived(goal))) return {seconds: passed / 1000, usage};
    if (passed > withinMs)
      throw new Error(
        `of changes up to ${goal.last}, not all had arrived after ${Math.round(passed / 1000)} s`,
      );
    await pause(passed);
  }
}

/** The process of PostgreSQL that reads the slot; it may be between two connections. */
export async function readerOf(working: Working): Promise<number> {
  for (const since = performance.now(); performance.now() - since < 30_000; await sleep(20)) {
    const pid = await working.reader();
    if (pid !== undefined) return pid;
  }
  throw new Error('no process of PostgreSQL reads the slot');
}

/**
 * Stops a process of PostgreSQL while it waits for something from outside: it could hold a lock otherwise, which
 * others then wait for. Gives what has it go on.
 */
export async function hold(client: pg.Client, pid: number): Promise<() => void> {
  const letGo = (): void => send(pid, 'SIGCONT');
  for (const since = performance.now(); performance.now() - since < 60_000; await sleep(23)) {
    send(pid, 'SIGSTOP');
    await sleep(20);
    const {rows: found} = await client.query<{idle: boolean}>(
      "SELECT coalesce(wait_event_type IN ('Activity', 'Client'), false) AS idle FROM pg_stat_activity WHERE pid = $1",
      [pid],
    );
    if (found[0]?.idle) return letGo;
    letGo();
  }
  throw new Error('the reader of the slot is never idle');
}
