import {setTimeout as sleep} from 'node:timers/promises';
import {takeLock} from '../../clickhouse/lock.ts';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {type Context, databasesOf, migrateAll} from '../context.ts';
import {asPipelineError} from '../failures.ts';
import {metrics} from '../observe/metrics.ts';
import {backoff} from '../retry.ts';
import {readRollups} from './rollup.ts';
import {type Checked, Rollups} from './worker.ts';

/** How often a process looks whether there are rollups, and nobody keeps them. */
const LOOK_MS = 5_000;
/** How often the holder of the lock says that it lives. */
const ALIVE_MS = 10_000;
/** Between two parts of the rollups that are compared with what FINAL says, which takes at most this share of the time. */
const CHECK_MS = 2_000;
const CHECK_SHARE = 0.02;
/** Between looks for what was written. */
const PAUSE_MS = 200;
/** A run that takes so long is followed by a pause as long. */
const LONG_MS = 5_000;
/** One that takes longer has much to do: then inserts go first, and have four fifths of the time. */
const MOST_PAUSE = 4;
const MOST_PAUSE_MS = 30_000;

/** After a run that took so many ms; the shorter it was, the less of it. */
export const pauseAfter = (tookMs: number): number =>
  Math.min(MOST_PAUSE_MS, Math.max(PAUSE_MS, tookMs * Math.min(MOST_PAUSE, tookMs / LONG_MS)));

/**
 * Keeps the rollups up to date until the signal aborts, where no other process does. A failure is told and tried
 * again, and never ends the replication.
 */
export async function keepRollups(context: Context): Promise<void> {
  const {client, settings, log, signal} = context;
  const files = readMigrationFiles();
  for (let attempt = 0; !signal.aborted; ) {
    try {
      const isNeeded = (await readRollups(client, databasesOf(settings), files)).length > 0;
      const lock = isNeeded && (await takeLock(client, databasesOf(settings), 'rollups', {patienceMs: 0}));
      if (!lock) {
        await sleep(LOOK_MS, undefined, {signal}).catch(() => {});
        continue;
      }
      // A missed one is no harm: others wait for several, and a statement looks itself whose turn it is.
      const alive = setInterval(() => void lock.alive().catch(() => {}), ALIVE_MS);
      try {
        await hold(context, lock, () => {
          attempt = 0;
        });
      } finally {
        clearInterval(alive);
        await lock.release().catch(() => {}); // silence tells the same, later
      }
    } catch (thrown) {
      if (signal.aborted) return;
      const error = asPipelineError(thrown);
      log.error({code: error.code, hint: error.hint, attempt}, `rollups: ${error.message}`);
      await backoff(attempt++, signal);
    }
  }
}

async function hold(
  {client, settings, log, signal}: Context,
  lock: {number: bigint},
  onRun: () => void,
): Promise<void> {
  const rollups = new Rollups({
    client,
    names: databasesOf(settings),
    lock,
    log,
    signal,
    onFilled: async () => {
      await migrateAll(client, settings, log);
    },
  });
  await rollups.takeOver();
  let check = rollups.check({repair: true});
  let checkAt = performance.now() + CHECK_MS;
  while (!signal.aborted) {
    const startedAt = performance.now();
    const worked = await rollups.cycle();
    const took = performance.now() - startedAt;
    if (worked) {
      metrics.rollupSeconds.observe(took / 1000);
      onRun();
    } else if (startedAt > checkAt) {
      const {done, value} = await check.next();
      if (done) check = rollups.check({repair: true});
      else if (value.buckets.length > 0) tellDifference(log, value);
      checkAt = performance.now() + Math.max(CHECK_MS, (performance.now() - startedAt) / CHECK_SHARE);
    }
    await sleep(pauseAfter(worked ? took : 0), undefined, {signal}).catch(() => {});
  }
}

function tellDifference(log: Context['log'], {rollup, buckets}: Checked): void {
  metrics.rollupDifferences.inc({rollup}, buckets.length);
  log.error(
    {rollup, buckets: buckets.slice(0, 10)},
    `${rollup}: ${buckets.length} buckets were not what FINAL says, and were computed anew: please report it`,
  );
}
