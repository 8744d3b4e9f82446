import {type ChildProcess, spawn} from 'node:child_process';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';
import {stripVTControlCharacters} from 'node:util';

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const CLI = fileURLToPath(new URL('../../node_modules/ava/entrypoints/cli.mjs', import.meta.url));

// A line of AVA's report for each test, and for what goes wrong outside of one; its second half begins with a rule.
const LINES = {
  passed: /^ {0,2}[✔√] /,
  // Failed, still pending at a time-out (◌), or a file that came to nothing; an announcement of the other two is not counted.
  failed: /^ {0,2}([✘×] (?!Exiting due to|Timed out)|(◌|\( \)) )/,
  skipped: /^ {0,2}- \[(skip|todo)\]/,
} as const satisfies Record<keyof Counts, RegExp>;
const RULE = /^\s*─+\s*$/;

/** Reads AVA's report line by line and keeps count. */
export function avaCounter(): {line(text: string): void; counts: Counts} {
  const counts: Counts = {passed: 0, failed: 0, skipped: 0};
  let ruled = false;
  return {
    counts,
    line(text) {
      const plain = stripVTControlCharacters(text);
      ruled ||= RULE.test(plain);
      if (ruled) return;
      for (const key of ['passed', 'failed', 'skipped'] as const) if (LINES[key].test(plain)) counts[key]++;
    },
  };
}

/** Runs AVA, passes its report on, and counts. A run that fails without a failed test (a crash, no tests) counts as one failure. */
export function runAva(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): {child: ChildProcess; done: Promise<{code: number; counts: Counts}>} {
  const color = process.stdout.isTTY ? ['--color'] : [];
  const child = spawn(process.execPath, [CLI, ...color, ...args], {
    env,
    stdio: ['inherit', 'pipe', 'inherit'],
  });
  const counter = avaCounter();
  // AVA writes what tests print to its standard error, so this stream is the report and nothing else.
  createInterface({input: child.stdout}).on('line', line => {
    counter.line(line);
    console.log(line);
  });
  const done = new Promise<number>((resolve, reject) => {
    child.once('error', reject).once('close', code => resolve(code ?? 1));
  }).then(code => {
    if (code !== 0) counter.counts.failed ||= 1;
    return {code, counts: counter.counts};
  });
  return {child, done};
}
