import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import path from 'node:path';
import type {Failpoint} from '../observe/failpoint.ts';
import type {Log} from '../observe/log.ts';
import {run} from '../pipeline.ts';
import type {Settings} from '../settings/settings.ts';
import {removeDeadMembers} from './dead-member.ts';

const MAIN = path.join(import.meta.dirname, '../main.ts');

/**
 * The pipeline under test. It runs in this process, and in one of its own where it is to be killed; when that has
 * died, it goes on in this one.
 */
export class PipelineRunner {
  readonly #settings: Settings;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #log: Log;
  readonly #note: (line: string) => void;
  readonly #failed = Promise.withResolvers<never>();
  #here: {stop: AbortController; ended: Promise<void>} | undefined;
  #child: {process: ChildProcess; ended: Promise<void>} | undefined;
  restarts = 0;
  kills = 0;

  constructor(
    settings: Settings,
    environment: Readonly<Record<string, string>>,
    log: Log,
    note: (line: string) => void,
  ) {
    this.#settings = settings;
    this.#environment = environment;
    this.#log = log;
    this.#note = note;
    this.#failed.promise.catch(() => {});
  }

  /** Rejects with what the pipeline ended with by itself; never resolves. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }
  get isHere(): boolean {
    return this.#here !== undefined;
  }
  get isChild(): boolean {
    return this.#child !== undefined;
  }

  start(): void {
    if (this.#here || this.#child) return;
    const stop = new AbortController();
    const ended = run({settings: this.#settings, log: this.#log, signal: stop.signal}).then(
      () => {
        if (!stop.signal.aborted) this.#failed.reject(new Error('the pipeline ended by itself'));
      },
      error => this.#failed.reject(error),
    );
    this.#here = {stop, ended};
  }

  /** Starts it in a process that dies at the place, and again here then. */
  startDoomed(place: Failpoint, nth: number): void {
    if (this.#here || this.#child) throw new Error('it runs already');
    const child = spawn(process.execPath, [MAIN, 'run'], {
      env: {
        PATH: process.env.PATH ?? '',
        HOME: process.env.HOME ?? '',
        NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? '',
        ...this.#environment,
        FRESHET_FAILPOINT: `${place}:${nth}`,
        FRESHET_STACK_CHILD: '1', // the pipe ends the child with this process
        FRESHET_LOG_LEVEL: 'error',
      },
      stdio: ['pipe', 'ignore', 'pipe'],
    });
    let log = '';
    child.stderr.setEncoding('utf8').on('data', text => {
      log += text;
    });
    const ended = once(child, 'close').then(async ([code, signal]) => {
      if (this.#settings.FRESHET_TRANSPORT === 'kafka') await removeDeadMembers(this.#settings);
      this.#child = undefined;
      if (signal !== 'SIGKILL') this.#failed.reject(new Error(`the pipeline ended with ${code}:\n${log}`));
      this.kills += 1;
      this.restarts += 1;
      this.#note(`-- the pipeline was killed (${place}, time ${nth} at the latest)`);
    });
    this.#child = {process: child, ended};
    this.#note(`-- the pipeline runs in a process that dies at ${place}, time ${nth}`);
  }

  /** Kills the child where it has not died by itself after so long, in ms. */
  async kill(patienceMs: number): Promise<void> {
    if (!this.#child) return;
    const {process: child, ended} = this.#child;
    const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs);
    await ended;
    clearTimeout(timer);
  }

  /** Ends it, in good order where it runs in this process; was it running? */
  async stop(): Promise<boolean> {
    const here = this.#here;
    const running = here !== undefined || this.#child !== undefined;
    await this.kill(0);
    if (here) {
      here.stop.abort();
      await here.ended;
      this.#here = undefined;
      this.restarts += 1;
    }
    return running;
  }
}
