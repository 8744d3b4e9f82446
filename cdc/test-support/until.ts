import {setTimeout as sleep} from 'node:timers/promises';

/** Asks again until the answer is yes; the test's own time limit ends it. */
export async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await sleep(50);
}
