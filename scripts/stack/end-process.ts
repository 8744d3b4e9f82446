import type {ChildProcess} from 'node:child_process';
import {setTimeout as delay} from 'node:timers/promises';
import {startedAt} from './lock-file.mjs';
import type {Target} from './target.ts';

const POLL_MS = 20;

/** Ends a process step by step, and its whole group by SIGKILL when no step did. Resolves when it is gone. Never touches another process that has its pid now. */
export async function endProcess(target: Target): Promise<void> {
  for (const {signal, graceMs} of target.stop) {
    if (!alive(target)) return; // its pid may be another's by now
    if (signal) send(target.pid, signal);
    send(target.pid, 'SIGCONT'); // a stopped process would keep the signal waiting
    if (await gone(target, graceMs)) return;
  }
  if (alive(target)) send(-target.pid, 'SIGKILL');
  await gone(target, Number.POSITIVE_INFINITY);
}

/** Freshet's own limit for a stop is below it. */
const STOP_MS = 30_000;

/**
 * Ends a child that leads no group, and resolves when it has closed. It is killed where it does not go: the end of a Node
 * process can hang in V8's threads (nodejs/node issue 54918), behind all that it had to do.
 */
export async function endChild(child: ChildProcess, closed: Promise<unknown>): Promise<void> {
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await closed;
  clearTimeout(late);
}

export const alive = ({pid, started}: Target): boolean => {
  const now = startedAt(pid);
  return now !== null && now === started;
};

async function gone(target: Target, withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  while (alive(target)) {
    if (performance.now() > deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** Sends a signal to a process, or to a group for a negative pid; one that is gone already is no error. */
export function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}
