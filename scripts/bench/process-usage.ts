import {readdir, readFile, writeFile} from 'node:fs/promises';

/** Linux counts processor time in hundredths of a second. */
const MICROS_A_TICK = 10_000;

// Fields of /proc/<pid>/stat behind the command's closing parenthesis.
const PARENT = 1;
const USER = 11;
const CHILDREN_SYSTEM = 14;

async function stat(pid: number): Promise<string[] | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  return text?.slice(text.lastIndexOf(')') + 2).split(' ');
}

const micros = (fields: readonly string[], last: number): number =>
  fields.slice(USER, last + 1).reduce((sum, ticks) => sum + Number(ticks), 0) * MICROS_A_TICK;

/** Processor time of one process so far, its threads included; 0 where there is none. */
export async function cpuMicros(pid: number): Promise<number> {
  const fields = await stat(pid);
  return fields ? micros(fields, USER + 1) : 0;
}

/** The same with that of its children, those that have ended too. */
export async function familyCpuMicros(pid: number): Promise<number> {
  const own = await stat(pid);
  const names = (await readdir('/proc')).filter(name => /^\d+$/.test(name));
  const all = await Promise.all(names.map(name => stat(Number(name))));
  const children = all.filter(fields => fields?.[PARENT] === String(pid));
  const of = (fields: string[] | undefined, last: number): number => (fields ? micros(fields, last) : 0);
  return of(own, CHILDREN_SYSTEM) + children.reduce((sum, fields) => sum + of(fields, USER + 1), 0);
}

/** Has Linux forget the most memory that a process held, so that the next peak is of what comes. */
export async function forgetPeak(pid: number): Promise<void> {
  await writeFile(`/proc/${pid}/clear_refs`, '5').catch(() => {});
}

/** The most memory that a process held, in MiB; 0 where there is none. */
export async function peakMebibytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}
