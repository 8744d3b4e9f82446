import {spawn} from 'node:child_process';
import {openSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {endProcess} from '../stack/end-process.ts';
import {startedAt} from '../stack/lock-file.mjs';
import {startReaper} from '../stack/reaper.ts';

export interface PeerProcess {
  readonly pid: number;
  /** Rejects, with the end of its log, when it ends by itself. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

const TAIL = 2_000;

/** Starts a program that is not Freshet's; it ends with this process, however that ends. */
export function startPeer(
  name: string,
  file: string,
  args: readonly string[],
  {log, env = {}}: {log: string; env?: Readonly<Record<string, string>>},
): PeerProcess {
  const output = openSync(log, 'a');
  const child = spawn(file, args, {
    detached: true,
    stdio: ['ignore', output, output],
    env: {...process.env, ...env},
  });
  const {pid = 0} = child;
  const target = {name, pid, started: startedAt(pid), stop: [{signal: 'SIGTERM', graceMs: 10_000} as const]};
  const reaper = startReaper();
  if (pid) reaper.watch([target]);
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  let stopping = false;
  child.once('error', error => failed.reject(new Error(`${name} cannot be started: ${error.message}`)));
  child.once('exit', async code => {
    if (stopping) return;
    const told = await readFile(log, 'utf8').catch(() => '');
    failed.reject(new Error(`${name} ended with ${code}\n${told.slice(-TAIL)}`));
  });
  return {
    pid,
    failed: failed.promise,
    async stop() {
      stopping = true;
      if (pid) await endProcess(target);
      reaper.close();
    },
  };
}
