import fc from 'fast-check';
import type {Place} from './place.ts';
import {type Outcome, runHistory} from './run-history.ts';
import {type HistoryOptions, histories} from './steps.ts';

export interface SeedResult extends Outcome {
  readonly seed: number;
  /** Where the smallest history that still differs was found; empty without a difference. */
  readonly path: string;
  /** The command that runs it again. */
  readonly again: string;
}

/**
 * Runs the history of a seed. Where it differs, smaller ones that differ too are looked for, for so long; the outcome
 * is of the smallest. The same seed and options give the same history.
 */
export async function runSeed(
  place: Place,
  seed: number,
  options: HistoryOptions,
  shrinkMs = 0,
): Promise<SeedResult> {
  let first: Outcome | undefined;
  let smallest: Outcome | undefined;
  const property = fc.asyncProperty(histories(options), async history => {
    const outcome = await runHistory(place, history);
    first ??= outcome;
    if (outcome.differences.length > 0) smallest = outcome;
    return outcome.differences.length === 0;
  });
  const {counterexamplePath, errorInstance} = await fc.check(property, {
    seed,
    numRuns: 1,
    unbiased: true,
    endOnFailure: shrinkMs === 0,
    ...(shrinkMs > 0 && {interruptAfterTimeLimit: shrinkMs}),
  });
  const outcome = smallest ?? first;
  // What a history throws is no difference: a server that is gone, or a mistake in here.
  if (!outcome) throw errorInstance;
  const again = `npm run soak -- --seed ${seed} --steps ${options.mostSteps}${
    options.schemaChanges ? '' : ' --no-schema-changes'
  }${options.kafka ? '' : ' --no-kafka'}`;
  return {...outcome, seed, path: counterexamplePath ?? '', again};
}

/** A difference for a person: the seed, what differs, and the history as SQL. */
export function report({seed, path, again, differences, lines}: SeedResult): string {
  return [`seed ${seed}${path && `, path ${path}`}: ${again}`, ...differences, '', ...lines].join('\n');
}
