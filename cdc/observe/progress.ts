import type {SnapshotProgress} from '../source/snapshot.ts';
import type {Log} from './log.ts';

const EVERY_MS = 2_000;

/** Tells of a snapshot: one line that is written over on a terminal, otherwise a log line every two seconds. */
export function snapshotProgress(
  log: Log,
  terminal = process.stderr,
): (progress: Readonly<SnapshotProgress>) => void {
  const tables = new Map<string, {startedAt: number; toldAt: number}>();
  return ({table, rows, bytes, estimatedRows, done}) => {
    const now = Date.now();
    const seen = tables.get(table) ?? {startedAt: now, toldAt: 0};
    tables.set(table, seen);
    if (!done && now - seen.toldAt < (terminal.isTTY ? 100 : EVERY_MS)) return;
    seen.toldAt = now;
    const seconds = Math.max((now - seen.startedAt) / 1000, 0.001);
    const rate = rows / seconds;
    const left = done ? 0 : Math.max(0, estimatedRows - rows) / Math.max(rate, 1);
    const line =
      `${table}: ${rows.toLocaleString('en')} rows, ${(bytes / (1 << 20)).toFixed(1)} MiB` +
      (done
        ? `, done in ${seconds.toFixed(1)} s`
        : `, ${Math.round(rate).toLocaleString('en')} rows/s, about ${left.toFixed(0)} s left`);
    if (!terminal.isTTY) log.info({table, rows}, line);
    else terminal.write(`\r\x1b[K${line}${done ? '\n' : ''}`);
  };
}
