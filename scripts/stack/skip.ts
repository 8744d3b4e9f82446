import {appendFileSync} from 'node:fs';
import type {ExecutionContext} from 'ava';
import {z} from 'zod';

/** Names the file in which `npm test` collects what was skipped. */
export const SKIPS_FILE = 'FRESHET_TEST_SKIPS';

/** One line of that file. */
export const Skip = z.object({title: z.string(), reason: z.string()});

/** Says why a test cannot run here, in its log and at the end of `npm test`. The test returns right after it. */
export function skip(t: ExecutionContext, reason: string): void {
  t.log(`skipped: ${reason}`);
  const file = process.env[SKIPS_FILE];
  if (file) appendFileSync(file, `${JSON.stringify({title: t.title, reason})}\n`);
  t.not(reason, '', 'a skipped test says why');
}
