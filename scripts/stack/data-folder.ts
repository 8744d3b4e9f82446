import {writeFileSync} from 'node:fs';
import {mkdir, readdir, readFile, rm} from 'node:fs/promises';
import path from 'node:path';
import {endProcess} from './end-process.ts';
import {tryLock} from './lock-file.mjs';
import {StackError} from './stack-error.ts';
import {type Target, Targets} from './target.ts';

const LOCK = 'lock';
const RUNNING = 'running.json';

/** The folder of a stack, held by this process. */
export interface DataFolder {
  readonly path: string;
  /** Notes which servers run, for a next start that finds them orphaned. */
  note(targets: readonly Target[]): void;
  release(): void;
}

/**
 * Takes a stack's folder: ends what a crashed run left running on it and, for `fresh`, empties it.
 * @throws StackError when a living process holds it
 */
export async function takeDataFolder(dir: string, fresh: boolean): Promise<DataFolder> {
  await mkdir(dir, {recursive: true});
  const lock = tryLock(path.join(dir, LOCK));
  if (lock.heldBy !== null) {
    throw new StackError(`process ${lock.heldBy} runs a stack on ${dir}: end it first`);
  }
  const running = path.join(dir, RUNNING);
  try {
    await Promise.all((await orphans(running)).map(endProcess));
    const old = fresh ? await readdir(dir) : ['log'];
    for (const name of old) if (name !== LOCK) await rm(path.join(dir, name), {recursive: true, force: true});
    await mkdir(path.join(dir, 'log'));
  } catch (error) {
    lock.release();
    throw error;
  }
  return {
    path: dir,
    note: targets => writeFileSync(running, JSON.stringify(targets)),
    release: lock.release,
  };
}

async function orphans(file: string): Promise<Target[]> {
  try {
    return Targets.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    return []; // none was written, or only half of it before the machine went down
  }
}
