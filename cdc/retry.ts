import {setTimeout as sleep} from 'node:timers/promises';
import {asPipelineError} from './failures.ts';
import type {Log} from './observe/log.ts';

const FIRST_MS = 100;
const LONGEST_MS = 10_000;

/** Waits longer after each failure, up to 10 s, with jitter so that many do not come back at once. */
export async function backoff(attempt: number, signal: AbortSignal): Promise<void> {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt, 10));
  await sleep(ceiling / 2 + Math.random() * (ceiling / 2), undefined, {signal}).catch(() => {});
}

/**
 * Runs `work` until it succeeds, again after each failure whose row in `FAILURES` says `retry`; any other failure,
 * and an abort, is thrown.
 */
export async function retrying<T>(
  what: string,
  work: () => Promise<T>,
  {log, signal}: {log: Log; signal: AbortSignal},
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      const result = await work();
      if (attempt > 0) log.info({attempt}, `${what}: works again`);
      return result;
    } catch (thrown) {
      const error = asPipelineError(thrown);
      if (error.reaction !== 'retry' || signal.aborted) throw error;
      log.warn({code: error.code, hint: error.hint, attempt}, `${what}: ${error.message}`);
      await backoff(attempt, signal);
      if (signal.aborted) throw error;
    }
  }
}
