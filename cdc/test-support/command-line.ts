import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {text} from 'node:stream/consumers';
import type {ExecutionContext} from 'ava';
import {endChild} from '../../scripts/stack/end-process.ts';

const MAIN = path.join(import.meta.dirname, '../main.ts');

/** What a command had to say; stderr is the log of one that keeps running. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Child {
  /** Resolves when the log has this text; rejects, with the log, when the process ends first. */
  logged(words: string): Promise<void>;
  /** What was logged up to now. */
  log(): string;
  /** Sends SIGTERM; the exit code, null where it had to be killed. */
  stop(): Promise<number | null>;
  /** The signal that it died of, when it has. */
  died(): Promise<NodeJS.Signals | null>;
  readonly pid: number;
}

/** Nothing but these settings reaches the command: the tests' own environment stays out. */
function start(
  t: ExecutionContext,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  cwd: string,
) {
  const {PATH = '', HOME = ''} = process.env;
  const child = spawn(process.execPath, [MAIN, ...args], {
    // The pipe on stdin ends a command that keeps running when this process ends, however it ends.
    env: {PATH, HOME, FRESHET_STACK_CHILD: '1', ...environment},
    cwd,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  t.teardown(() => {
    child.kill('SIGKILL');
  });
  return child;
}

/** Runs a command to its end, in a folder that has nothing to do with the project, with `input` on stdin. */
export async function freshet(
  t: ExecutionContext,
  environment: Readonly<Record<string, string>>,
  args: readonly string[],
  {cwd = tmpdir(), input = ''}: {cwd?: string; input?: string} = {},
): Promise<Ended> {
  const child = start(t, args, environment, cwd);
  child.stdin.on('error', () => {}).end(input); // it may end before it has read all
  const [stdout, stderr, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ]);
  return {code, stdout, stderr};
}

/** Starts a command that keeps running. */
export function keepRunning(
  t: ExecutionContext,
  environment: Readonly<Record<string, string>>,
  args: readonly string[],
): Child {
  const child = start(t, args, environment, tmpdir());
  const ended = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
  let log = '';
  child.stdout.resume();
  child.stderr.setEncoding('utf8').on('data', chunk => {
    log += chunk;
  });
  return {
    pid: child.pid ?? 0,
    died: async () => (await ended)[1],
    log: () => log,
    async logged(words) {
      while (!log.includes(words)) {
        const more = await Promise.race([once(child.stderr, 'data'), ended.then(() => undefined)]);
        if (more === undefined && !log.includes(words)) throw new Error(`ended without "${words}":\n${log}`);
      }
    },
    async stop() {
      await endChild(child, ended);
      const [code] = await ended;
      return code;
    },
  };
}
