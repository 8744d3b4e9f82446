import type {SnapshotProgress} from '../source/snapshot.ts';
import type {Log} from './log.ts';

const EVERY_MS = 2_000;

/** Tells of a snapshot: one line that is written over on a terminal, otherwise a log line every two seconds. */
export function snapshotProgress(
  log: Log,
  terminal = process.stderr,
): (progress: Readonly<SnapshotProgress>) => void {
  const tables = new Map<string, {startedAt: number; toldAt: number}>();
  return ({table, rows, bytes, rowsBefore = 0, estimatedRows, done}) => {
    const now = Date.now();
    const seen = tables.get(table) ?? {startedAt: now, toldAt: 0};
    tables.set(table, seen);
    if (!done && now - seen.toldAt < (terminal.isTTY ? 100 : EVERY_MS)) return;
    seen.toldAt = now;
    const seconds = Math.max((now - seen.startedAt) / 1000, 0.001);
    const rate = (rows - rowsBefore) / seconds;
    const known = rate > 0 && estimatedRows > rows;
    const left = known ? `about ${duration((estimatedRows - rows) / rate)} left` : 'time left unknown';
    const line =
      `${table}: ${rows.toLocaleString('en')} rows, ${(bytes / (1 << 20)).toFixed(1)} MiB` +
      (done
        ? `, done in ${duration(seconds)}`
        : `, ${Math.round(rate).toLocaleString('en')} rows/s, ${left}`);
    if (!terminal.isTTY) log.info({table, rows, bytes, reading: !done}, line);
    else terminal.write(`\r\x1b[K${line}${done ? '\n' : ''}`);
  };
}

/** '4.2 s', '35 s', '12 min', '3 h 5 min' */
function duration(seconds: number): string {
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
