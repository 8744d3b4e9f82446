import {takeLock} from '../../clickhouse/lock.ts';
import {databasesOf} from '../context.ts';
import {createLog} from '../observe/log.ts';
import {snapshotProgress} from '../observe/progress.ts';
import {textTable} from '../observe/text-table.ts';
import type {Pass} from '../reconcile/verdict.ts';
import {exitCode, type TableVerdict, type VerifyProgress, verify} from '../reconcile/verify.ts';
import {Rollups} from '../rollups/worker.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';

/**
 * Prints a line a table and what differs; on stderr how far it is. With `repair`, rows that differ are read again.
 * 0 equal, in the end, 1 different, 2 not settled.
 */
export async function verifyTables(
  settings: Settings,
  {timeoutMs, repair}: {timeoutMs: number; repair: boolean},
): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const verdicts = await verify({client, settings, timeoutMs, repair, onProgress: tellProgress()});
    console.log(verdictTable(verdicts));
    for (const verdict of verdicts) for (const line of verdictLines(verdict)) console.log(line);
    return exitCode(verdicts);
  } finally {
    await client.close();
  }
}

/**
 * Compares the rollups behind the views with what FINAL says, and prints a line for each. Takes their keeping over from
 * a pipeline that runs, which has it back a few seconds after. 0 equal, in the end, 1 different.
 */
export async function verifyViews(settings: Settings, {repair}: {repair: boolean}): Promise<number> {
  const client = clickhouseClient(settings);
  const names = databasesOf(settings);
  const lock = await takeLock(client, names, 'rollups', {patienceMs: 10_000, fromHolder: true});
  try {
    const rollups = new Rollups({client, names, lock: lock!, log: createLog('warn')});
    await rollups.takeOver();
    const found = new Map<string, string[]>();
    for await (const {rollup, buckets} of rollups.check({repair}))
      found.set(rollup, [...(found.get(rollup) ?? []), ...buckets]);
    for (const [rollup, buckets] of found) console.log(rollupLine(rollup, buckets, repair));
    return !repair && [...found.values()].some(buckets => buckets.length > 0) ? 1 : 0;
  } finally {
    await lock?.release();
    await client.close();
  }
}

function rollupLine(rollup: string, buckets: readonly string[], repair: boolean): string {
  if (buckets.length === 0) return `✓ ${rollup}: equal`;
  const few = buckets.slice(0, 5).join(', ');
  const what = `${count(buckets.length)} buckets differ from what FINAL says: ${few}${buckets.length > 5 ? ', …' : ''}`;
  return repair ? `↻ ${rollup}: ${what}; computed anew` : `✗ ${rollup}: ${what}`;
}

export const verdictTable = (verdicts: readonly TableVerdict[]): string =>
  textTable(
    verdicts.map(({table, verdict, rows, checksum, seconds}) => ({
      table,
      verdict,
      'PostgreSQL rows': rows.postgres.toString(),
      'ClickHouse rows': rows.clickhouse.toString(),
      'PostgreSQL checksum': checksum.postgres,
      'ClickHouse checksum': checksum.clickhouse,
      seconds: seconds.toFixed(2),
    })),
  );

/** What there is to say of a table beside its line. */
export function verdictLines({
  table,
  passes,
  found,
  differences,
  reason,
  repair,
}: Omit<TableVerdict, 'verdict'>): string[] {
  const more = found - differences.length;
  const aheadVersions = [...new Set(repair?.ahead.map(({version}) => `'${version}'`))].join(', ');
  return [
    ...(passes.postgres.rows > 0n
      ? [`· ${table}: PostgreSQL ${speed(passes.postgres)}; ClickHouse ${speed(passes.clickhouse)}`]
      : []),
    ...(reason === '' ? [] : [`· ${table} has not settled: ${reason}`]),
    ...(repair?.differences.map(difference => `↻ ${described(table, difference)}`) ?? []),
    ...(repair
      ? [
          `${found === 0 && reason === '' ? '✓' : '✗'} ${table}: ${count(repair.keys)} keys read again at ${repair.position}, ${count(found)} still differ`,
        ]
      : []),
    ...differences.map(({key, what, columns}) =>
      `✗ ${table} ${key}: ${what} ${columns.join(', ')}`.trimEnd(),
    ),
    ...(more > 0 ? [`✗ ${table}: and ${count(more)} keys more`] : []),
    ...(repair && repair.ahead.length > 0
      ? [
          `! ${table}: ClickHouse has ${count(repair.ahead.length)} rows with a version above all that PostgreSQL has written, first ${repair.ahead[0]!.key}. Somebody else wrote them, and nothing that streams or is repaired can win over them. Delete them, and repair again:`,
          `    ALTER TABLE ${repair.target} DELETE WHERE _version IN (${aheadVersions})`,
        ]
      : []),
  ];
}

const described = (table: string, {key, what, columns}: TableVerdict['differences'][number]): string =>
  `${table} ${key}: ${what} ${columns.join(', ')}`.trimEnd();
const count = (value: number | bigint): string => value.toLocaleString('en');

function speed({rows, bytes, seconds}: Pass): string {
  const time = Math.max(seconds, 0.001);
  const mebibytes = Number(bytes) / (1 << 20);
  return `${count(rows)} rows, ${mebibytes.toFixed(1)} MiB in ${seconds.toFixed(1)} s (${count(Math.round(Number(rows) / time))} rows/s, ${(mebibytes / time).toFixed(1)} MiB/s)`;
}

const EVERY_MS = 2_000;

/** One line that is written over on a terminal, otherwise a line every two seconds. */
export function tellProgress(terminal = process.stderr): (progress: VerifyProgress) => void {
  const tell = (_: object, message: string): void => {
    terminal.write(`${message}\n`);
  };
  const reading = snapshotProgress({debug: tell, info: tell, warn: tell, error: tell}, terminal);
  let toldAt = Date.now();
  return progress => {
    if (progress.stage === 'reading') {
      reading({...progress, table: `${progress.table} in ${progress.server}`});
      return;
    }
    if (Date.now() - toldAt < EVERY_MS) return;
    toldAt = Date.now();
    const {table, level, pending, waiting, round} = progress;
    const what = level === 'key' ? 'keys' : 'pieces of the table';
    const line = `${table}: ${count(pending)} ${what} differ or change (round ${round}), ${count(waiting)} pieces wait`;
    terminal.write(terminal.isTTY ? `\r\x1b[K${line}` : `${line}\n`);
  };
}
