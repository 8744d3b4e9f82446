import {asPipelineError, type PipelineError} from './failures.ts';
import type {Log} from './observe/log.ts';
import {metrics} from './observe/metrics.ts';
import {backoff} from './retry.ts';

/** A stage that ran so long without a failure starts counting its attempts anew. */
const HEALTHY_MS = 60_000;

/**
 * Runs a stage until the signal aborts, again after failures that say `retry` or `resync` (a stage finds out at its
 * start what must be read again). Throws what halts.
 */
export async function supervise(
  name: string,
  stage: (signal: AbortSignal) => Promise<void>,
  {log, signal}: {log: Log; signal: AbortSignal},
): Promise<void> {
  for (let attempt = 0; !signal.aborted; ) {
    const startedAt = performance.now();
    try {
      await stage(signal);
    } catch (thrown) {
      const error = asPipelineError(thrown);
      if (signal.aborted && error.reaction === 'retry') return;
      if (performance.now() - startedAt > HEALTHY_MS) attempt = 0;
      report(log, name, error, attempt);
      if (error.reaction === 'halt' || error.reaction === 'park') throw error;
      metrics.restarts.inc({stage: name});
      await backoff(attempt++, signal);
    }
  }
}

function report(log: Log, stage: string, error: PipelineError, attempt: number): void {
  const facts = {
    code: error.code,
    hint: error.hint,
    reaction: error.reaction,
    attempt,
    ...(error.table && {table: error.table}),
  };
  if (error.reaction === 'retry') log.warn(facts, `${stage}: ${error.message}`);
  else log.error(facts, `${stage}: ${error.message}`);
}

/** Runs stages side by side: the first that fails stops the others, and its failure is thrown when all have ended. */
export async function together(
  stages: readonly ((signal: AbortSignal) => Promise<void>)[],
  signal: AbortSignal,
): Promise<void> {
  const failed = new AbortController();
  const joined = AbortSignal.any([signal, failed.signal]);
  await Promise.all(
    stages.map(stage =>
      stage(joined).catch(error => {
        if (!failed.signal.aborted) failed.abort(error);
      }),
    ),
  );
  if (failed.signal.aborted) throw failed.signal.reason;
}
