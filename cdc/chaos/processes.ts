import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';

const MAIN = path.join(import.meta.dirname, '../main.ts');
const CLOCK = path.join(import.meta.dirname, 'clock.ts');
/** A stop must end by then, whatever the servers do: the pipeline gives up after 25 s. */
export const STOP_MS = 40_000;
const LOG_BYTES = 60_000;

export type Command = 'run' | 'capture' | 'sink';

interface Process {
  readonly command: Command;
  readonly child: ChildProcess;
  readonly ended: Promise<void>;
  /** It was told to end, or was killed. */
  expected: boolean;
}

/** The pipeline under test, in processes of its own. */
export class Processes {
  readonly #environment: Readonly<Record<string, string>>;
  readonly #processes = new Set<Process>();
  readonly #failed = Promise.withResolvers<never>();
  log = '';

  constructor(environment: Readonly<Record<string, string>>) {
    this.#environment = environment;
    this.#failed.promise.catch(() => {});
  }

  /** Rejects when one ends that nobody has ended; never resolves. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** @param more settings of this process alone; FRESHET_FAILPOINT may kill it. */
  start(command: Command, more: Readonly<Record<string, string>> = {}): void {
    const {PATH = '', HOME = '', NODE_COMPILE_CACHE = ''} = process.env;
    const child = spawn(process.execPath, ['--import', CLOCK, MAIN, command], {
      env: {PATH, HOME, NODE_COMPILE_CACHE, FRESHET_STACK_CHILD: '1', ...this.#environment, ...more},
      cwd: tmpdir(),
      stdio: ['pipe', 'ignore', 'pipe', 'ipc'],
    });
    child.stdin?.on('error', () => {});
    child.stderr!.setEncoding('utf8').on('data', text => {
      this.log = (this.log + text).slice(-LOG_BYTES);
    });
    const one: Process = {
      command,
      child,
      expected: more.FRESHET_FAILPOINT !== undefined,
      ended: once(child, 'close').then(([code, signal]) => {
        this.#processes.delete(one);
        this.log += `-- ${command} ended with ${signal ?? code}\n`;
        if (!one.expected)
          this.#failed.reject(new Error(`${command} ended by itself with ${signal ?? code}`));
      }),
    };
    this.#processes.add(one);
  }

  count(command: Command): number {
    return this.#of(command).length;
  }

  #of(command?: Command): Process[] {
    return [...this.#processes].filter(one => command === undefined || one.command === command);
  }

  /** Sets the clock of all back by so long. */
  stepBack(ms: number): void {
    for (const {child} of this.#processes) child.send({stepBack: ms}, () => {});
  }

  /** SIGKILL, to one of the command or to all. */
  async kill(command?: Command, most = Number.POSITIVE_INFINITY): Promise<void> {
    const dying = this.#of(command).slice(0, most);
    for (const one of dying) {
      one.expected = true;
      one.child.kill('SIGKILL');
    }
    await Promise.all(dying.map(({ended}) => ended));
  }

  /** SIGTERM, to one of the command or to all; rejects where one has not ended in time. */
  async stop(command?: Command, most = Number.POSITIVE_INFINITY): Promise<void> {
    const ending = this.#of(command).slice(0, most);
    for (const one of ending) {
      one.expected = true;
      one.child.kill('SIGTERM');
    }
    const over = Promise.all(ending.map(({ended}) => ended));
    const late = new AbortController();
    const inTime = await Promise.race([
      over.then(() => true),
      sleep(STOP_MS, false, {signal: late.signal}).catch(() => false),
    ]);
    late.abort();
    if (!inTime) throw new Error(`not stopped ${STOP_MS / 1000} s after SIGTERM`);
  }
}
