// node scripts/bench/transaction.ts [rows, 2,000,000 by default] [direct or kafka] [NAME=value of a setting …]: how long
// one large transaction, and three that run at the same time, take from their commit until they are visible, and how
// much memory the process needs meanwhile.
import pg from 'pg';
import {textTable} from '../../cdc/observe/text-table.ts';
import {caughtUp} from '../../cdc/reconcile/position.ts';
import {verify} from '../../cdc/reconcile/verify.ts';
import {cpuMicros, forgetPeak, peakMebibytes} from './process-usage.ts';
import {insertLinesSql as lines, linesSql, withWorld} from './world.ts';

const [rows = '2000000', transport = 'direct', ...others] = process.argv.slice(2);
const count = Number(rows);
const PATIENCE_MS = 3_600_000;
/** Each of the three transactions writes its part in so many pieces, in turn with the others. */
const PIECES = 6;

await withWorld(
  'bench_transaction',
  {
    sql: linesSql(0),
    overrides: {FRESHET_TRANSPORT: transport, ...Object.fromEntries(others.map(pair => pair.split('=')))},
  },
  async ({pg: client, client: clickhouse, settings, freshet}) => {
    const run = freshet('run');
    const visible = async (): Promise<number> => {
      await caughtUp(clickhouse, settings, PATIENCE_MS);
      return Date.now();
    };
    for (;;) {
      const ready = await caughtUp(clickhouse, settings, PATIENCE_MS).catch(() => undefined);
      if (ready !== undefined) break;
    }
    const told: Record<string, unknown>[] = [];
    // Processor time says more than the clock where the machine has other work.
    const pid = run.child.pid ?? 0;
    const processor = async (): Promise<number> => (await cpuMicros(pid)) / 1e6;
    const measure = async (what: string, written: number, work: () => Promise<void>): Promise<void> => {
      await forgetPeak(pid);
      const before = Date.now();
      await work();
      const [committed, used] = [Date.now(), await processor()];
      const seconds = ((await visible()) - committed) / 1000;
      told.push({
        what,
        'written in s': ((committed - before) / 1000).toFixed(1),
        'visible after s': seconds.toFixed(1),
        'rows/s': Math.round(written / seconds).toLocaleString('en'),
        'CPU s': ((await processor()) - used).toFixed(1),
        'most MiB': Math.round(await peakMebibytes(pid)),
      });
    };
    await measure(`one of ${count.toLocaleString('en')} rows`, count, async () => {
      await client.query(`BEGIN; ${lines(1, count)}; COMMIT`);
    });
    const third = Math.floor(count / 3);
    await measure(`three of ${third.toLocaleString('en')}, interleaved`, 3 * third, async () => {
      const sessions = await Promise.all(
        [1, 2, 3].map(async () => {
          const session = new pg.Client(settings.FRESHET_PG_URL);
          await session.connect();
          await session.query('BEGIN');
          return session;
        }),
      );
      const piece = Math.floor(third / PIECES);
      for (let i = 0; i < PIECES; i++) {
        for (const [which, session] of sessions.entries()) {
          const from = count + which * third + i * piece + 1;
          const to = i === PIECES - 1 ? count + (which + 1) * third : from + piece - 1;
          // A third as many rows again go back with their savepoint.
          await session.query(
            `SAVEPOINT s; ${lines(10 * count + from, 10 * count + from + Math.floor(piece / 3))};
             ROLLBACK TO s; ${lines(from, to)}`,
          );
        }
      }
      await Promise.all(sessions.map(session => session.query('COMMIT')));
      await Promise.all(sessions.map(session => session.end()));
    });
    console.log(`${transport} ${others.join(' ')}`.trim());
    console.log(textTable(told));
    const verdicts = await verify({client: clickhouse, settings});
    for (const {table, verdict, rows: counted} of verdicts)
      console.log(`${table}: ${verdict}, ${counted.postgres.toLocaleString('en')} rows`);
    if (verdicts.some(({verdict}) => verdict !== 'equal')) process.exitCode = 1;
  },
);
process.exit();
