import {type ChildProcess, spawn} from 'node:child_process';
import {closeSync, openSync} from 'node:fs';
import {open} from 'node:fs/promises';
import path from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {endProcess, send} from './end-process.ts';
import {startedAt} from './lock-file.mjs';
import type {ServerRow, Site} from './server.ts';
import {StackError} from './stack-error.ts';
import type {Target} from './target.ts';

const READY_WITHIN_MS = 60_000;
const POLL_MS = 50;
const TAIL_BYTES = 2_000;

/** A server of the stack through its starts and stops. */
export interface Supervised {
  /** The process that runs now; null when none does. */
  target(): Target | null;
  /** Starts it and resolves when it serves. Throws a StackError with the end of its log. */
  start(): Promise<void>;
  stop(): Promise<void>;
  kill(signal: NodeJS.Signals): Promise<void>;
}

/** What the supervisor tells the stack. */
export interface Listener {
  /** The process was started or is gone. */
  changed(): void;
  /** It ended and nobody had asked for it. */
  died(code: number | null): void;
}

export function supervise(name: string, row: ServerRow, site: Site, listener: Listener): Supervised {
  const logFile = path.join(path.dirname(site.dir), 'log', `${name}.log`);
  let running: {child: ChildProcess; target: Target; gone: Promise<void>} | null = null;
  let wanted = false;

  async function start(): Promise<void> {
    const {file, args, uid, gid} = await row.prepare(site);
    const log = openSync(logFile, 'a');
    // A session of its own: a terminal's Ctrl-C ends the pipeline first, and the pipeline then ends its servers.
    const child = spawn(file, args, {
      detached: true,
      stdio: ['pipe', log, log],
      ...(uid === undefined || gid === undefined ? {} : {uid, gid}),
    });
    closeSync(log);
    const {pid} = child;
    if (pid === undefined) {
      const error = await new Promise(resolve => child.once('error', resolve));
      throw new StackError(`${row.title} cannot be started: ${error}`);
    }
    child.stdin?.on('error', () => {});
    wanted = true;
    const gone = new Promise<void>(resolve => {
      child.once('exit', code => {
        running = null;
        listener.changed();
        resolve();
        if (wanted) listener.died(code);
      });
    });
    running = {child, target: {name, pid, started: startedAt(pid), stop: row.stop}, gone};
    listener.changed();
    await untilReady();
  }

  async function untilReady(): Promise<void> {
    const deadline = performance.now() + READY_WITHIN_MS;
    while (!(await row.ready(site).catch(() => false))) {
      if (!running) throw new StackError(`${row.title} ended while it started\n${await tail()}`);
      if (performance.now() > deadline) {
        throw new StackError(`${row.title} is not ready after ${READY_WITHIN_MS / 1000} s\n${await tail()}`);
      }
      await delay(POLL_MS);
    }
  }

  async function tail(): Promise<string> {
    await using file = await open(logFile);
    const {size} = await file.stat();
    const start = Math.max(0, size - TAIL_BYTES);
    const {buffer, bytesRead} = await file.read(Buffer.alloc(TAIL_BYTES), 0, TAIL_BYTES, start);
    return `the end of ${logFile}:\n${buffer.toString('utf8', 0, bytesRead).trim() || '(empty)'}`;
  }

  return {
    start,
    target: () => running?.target ?? null,
    async stop() {
      wanted = false;
      if (!running) return;
      const {child, target, gone} = running;
      child.stdin?.end();
      await endProcess(target);
      await gone;
    },
    async kill(signal) {
      if (!running) throw new StackError(`${row.title} is not running`);
      const {target, gone} = running;
      const ends = !['SIGSTOP', 'SIGCONT'].includes(signal);
      if (ends) wanted = false;
      send(target.pid, signal);
      if (ends) await gone;
    },
  };
}
