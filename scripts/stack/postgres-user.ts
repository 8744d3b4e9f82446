import {execFile} from 'node:child_process';
import {lchown, lstat, readdir, stat} from 'node:fs/promises';
import path from 'node:path';
import {promisify} from 'node:util';
import type {Command} from './server.ts';
import {StackError} from './stack-error.ts';

const run = promisify(execFile);

/** How to run a command of PostgreSQL's, and who must own its files (null: whoever runs this). */
export interface PostgresUser {
  readonly owner: {readonly uid: number; readonly gid: number} | null;
  readonly as: (file: string, args: readonly string[]) => Command;
}

/**
 * PostgreSQL refuses to run as root. Root hands it to the user `postgres`, or `nobody` where there is none. That user may be
 * shut out of a folder on the way (a clone under /root, a private temporary folder): then it stays root outside and is
 * somebody else in a user namespace of its own.
 * @throws StackError when neither is possible
 */
export async function postgresUser(paths: readonly string[]): Promise<PostgresUser> {
  if (process.getuid?.() !== 0) return {owner: null, as: (file, args) => ({file, args})};
  const user = (await idsOf('postgres')) ?? (await idsOf('nobody'));
  if (!user) throw new StackError('PostgreSQL does not run as root, and there is no user postgres or nobody');
  const shut = await firstShut(paths, user);
  if (!shut) return {owner: user, as: (file, args) => ({file, args, ...user})};
  const namespace = ['--user', `--map-user=${user.uid}`, `--map-group=${user.gid}`];
  try {
    await run('unshare', [...namespace, 'true']);
  } catch {
    throw new StackError(
      `PostgreSQL does not run as root, and the user it would run as may not enter ${shut}: run this as another user, or from a folder that all may enter`,
    );
  }
  return {
    owner: {uid: 0, gid: 0},
    as: (file, args) => ({file: 'unshare', args: [...namespace, file, ...args]}),
  };
}

async function idsOf(name: string): Promise<{uid: number; gid: number} | null> {
  try {
    const [uid, gid] = await Promise.all([run('id', ['-u', name]), run('id', ['-g', name])]);
    return {uid: Number(uid.stdout), gid: Number(gid.stdout)};
  } catch {
    return null;
  }
}

/** The first folder on the way to one of these paths that the user may not enter. */
async function firstShut(paths: readonly string[], user: {uid: number; gid: number}): Promise<string | null> {
  for (const target of paths) {
    for (let dir = path.resolve(target); ; dir = path.dirname(dir)) {
      const {mode, uid, gid} = await stat(dir);
      const needed = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
      if (!(mode & needed)) return dir;
      if (dir === path.dirname(dir)) break;
    }
  }
  return null;
}

/** Gives a file or a folder and all in it to the user, unless it belongs to that user already. */
export async function giveTo({owner}: PostgresUser, target: string): Promise<void> {
  const {uid, isFolder} = await lstat(target).then(found => ({
    uid: found.uid,
    isFolder: found.isDirectory(),
  }));
  if (!owner || uid === owner.uid) return;
  const inside = isFolder ? await readdir(target, {recursive: true}) : [];
  for (const name of [...inside, '']) await lchown(path.join(target, name), owner.uid, owner.gid);
}
