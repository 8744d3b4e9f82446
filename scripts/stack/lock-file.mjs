// Plain JavaScript, because scripts/bootstrap.mjs needs it before Node 24 is there.
import {spawnSync} from 'node:child_process';
import {linkSync, readFileSync, renameSync, rmSync, writeFileSync} from 'node:fs';

const LINUX_STATE = 0; // fields of /proc/<pid>/stat after the command's closing parenthesis
const LINUX_START = 19;

export function startedAt(pid) {
  if (process.platform === 'linux') {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return 'ZX'.includes(fields[LINUX_STATE]) ? null : fields[LINUX_START];
    } catch {
      return null;
    }
  }
  const [, state, started] = /^(\S+)\s+(.+)$/m.exec(ps(pid)) ?? [];
  return !state || state.startsWith('Z') ? null : started.trim();
}

const ps = pid =>
  spawnSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {encoding: 'utf8'}).stdout ?? '';

export function tryLock(path) {
  const mine = `${path}.${process.pid}`;
  const stale = `${path}.stale.${process.pid}`;
  writeFileSync(mine, JSON.stringify({pid: process.pid, started: startedAt(process.pid)}));
  try {
    for (;;) {
      try {
        linkSync(mine, path);
        return {release: () => rmSync(path, {force: true}), heldBy: null};
      } catch (error) {
        if (error.code !== 'EEXIST') throw error;
      }
      const holder = read(path);
      if (holder && startedAt(holder.pid) === holder.started) return {release: null, heldBy: holder.pid};
      // Renamed and looked at again: between the two lines above another process may have taken it over.
      if (!holder || !rename(path, stale)) continue;
      const taken = read(stale);
      if (taken && startedAt(taken.pid) === taken.started) linkSync(stale, path);
      rmSync(stale, {force: true});
    }
  } finally {
    rmSync(mine, {force: true});
  }
}

function read(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') return null;
    throw new Error(`${path} is not a lock file of Freshet: remove it`, {cause: error});
  }
}

function rename(from, to) {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (error.code === 'ENOENT') return false;
    throw error;
  }
}
