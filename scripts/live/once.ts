import {verdictTable} from '../../cdc/commands/verify.ts';
import {exitCode, verify} from '../../cdc/reconcile/verify.ts';
import type {Demo} from './demo.ts';
import {printViews} from './views.ts';

/** Waits until all is there, compares it by value, and shows the views. The exit code of `freshet verify`. */
export async function runOnce(demo: Demo): Promise<number> {
  const startedAt = performance.now();
  await demo.caughtUp();
  console.log(`· caught up after ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  const verdicts = await verify({client: demo.client, settings: demo.settings});
  console.log(`\n${verdictTable(verdicts)}`);
  await printViews(demo);
  const code = exitCode(verdicts);
  console.log(code === 0 ? '\n✓ every table equals PostgreSQL, value for value' : '\n✗ tables differ');
  return code;
}
