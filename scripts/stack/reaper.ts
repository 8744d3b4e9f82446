// A process of its own that outlives the one which started it, however that died, and ends the servers it left.
import {spawn} from 'node:child_process';
import {rm} from 'node:fs/promises';
import {createInterface} from 'node:readline';
import {fileURLToPath} from 'node:url';
import {endProcess} from './end-process.ts';
import {type Target, Targets} from './target.ts';

export interface Reaper {
  readonly pid: number;
  /** Replaces the list of processes that must not outlive this one. */
  watch(targets: readonly Target[]): void;
  /** Sends the reaper away; what it still watches is ended by it. */
  close(): void;
}

/**
 * Starts the reaper, which removes the folders as its last act. Its standard input is the sign of life: the system closes
 * it when this process dies.
 */
export function startReaper(...folders: readonly string[]): Reaper {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...folders], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  child.stdin.on('error', () => {}); // a reaper that was killed: the servers still end by stop()
  return {
    pid: child.pid ?? 0,
    watch: targets => child.stdin.write(`${JSON.stringify(targets)}\n`),
    close: () => child.stdin.end(),
  };
}

if (import.meta.main) {
  let targets: readonly Target[] = [];
  for await (const line of createInterface({input: process.stdin})) targets = Targets.parse(JSON.parse(line));
  await Promise.all(targets.map(endProcess));
  for (const folder of process.argv.slice(2)) await rm(folder, {recursive: true, force: true});
}
