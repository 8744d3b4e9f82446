import {setTimeout as sleep} from 'node:timers/promises';
import pg from 'pg';
import {z} from 'zod';
import {atWork, orFailed, patience, readerOf, timeUntil, written} from './at-work.ts';
import type {Ground, System} from './ground.ts';
import type {Size} from './measure.ts';
import {percentile} from './percentile.ts';
import {forgetPeak} from './process-usage.ts';
import {cpuOf, memoryOf, perRow, type Stages, type Values} from './stages.ts';

/** How many rows of a second are looked for: each answer brings all since the oldest that is missing. */
const PROBES_A_SECOND = 200;
const POLL_MS = 5;
const LATE_MS = 60_000;
const Seen = z.tuple([z.coerce.number(), z.coerce.number()]);

/** Changes at a rate: for each that is looked for, how long after its commit a reader of the target gets it. */
export async function latency(ground: Ground, system: System, {warm, measured}: Size): Promise<Values> {
  const {world, workload} = ground;
  const rate = workload.rate!;
  return atWork(ground, system, async working => {
    await working.ready();
    // A slow rate is warmed up faster: a JVM compiles what it has run often.
    await writeAtRate(ground, 1, warm, Math.max(rate, 1_000));
    await timeUntil(working, await written(ground, warm), patience(ground, warm));
    const stages: Stages = {walsender: [await readerOf(working)], ...working.processes};
    await Promise.all(Object.values(stages).flat().map(forgetPeak));
    const before = await cpuOf(stages);
    const every = Math.max(1, Math.floor(rate / PROBES_A_SECOND));
    const last = warm + measured;
    const missing = new Set<number>();
    for (let id = warm + 1; id <= last; id++) if (id % every === 0) missing.add(id);
    const writing = writeAtRate(ground, warm + 1, last, rate);
    let writtenAt: number | undefined;
    writing.then(
      () => (writtenAt = performance.now()),
      () => (writtenAt = 0),
    );
    const took: number[] = [];
    while (missing.size > 0) {
      const [oldest] = missing;
      const result = await orFailed(
        working,
        world.client.query({
          query: `SELECT id, toUnixTimestamp64Micro(ordered_at) FROM ${working.target!.rows('lines')}
                  WHERE id >= ${oldest} AND id % ${every} = 0`,
          format: 'JSONCompactEachRow',
        }),
      );
      const found = z.array(Seen).parse(await result.json());
      const now = Date.now();
      // A row that is delivered twice counts once.
      for (const [id, micros] of found) if (missing.delete(id)) took.push(now - micros / 1000);
      if (writtenAt !== undefined && performance.now() - writtenAt > LATE_MS) {
        await writing;
        throw new Error(
          `${missing.size} rows are not visible ${LATE_MS / 1000} s after the last was written`,
        );
      }
      await sleep(POLL_MS);
    }
    await writing;
    const usage = await cpuOf(stages);
    await timeUntil(working, await written(ground, last), patience(ground, measured));
    const {cpu_us_per_row: _, ...each} = perRow(before, usage, measured);
    return {
      p50_ms: percentile(took, 0.5),
      p95_ms: percentile(took, 0.95),
      p99_ms: percentile(took, 0.99),
      p999_ms: percentile(took, 0.999),
      // Not the sum: ClickHouse's own work cannot be told from that of being asked.
      ...each,
      ...(await memoryOf(stages, working)),
    };
  });
}

/** At most 100 transactions a second, each as large as the rate wants it; what is late is made up for. */
async function writeAtRate(
  {world, workload}: Ground,
  first: number,
  last: number,
  rate: number,
): Promise<void> {
  const client = new pg.Client(world.settings.FRESHET_PG_URL);
  await client.connect();
  try {
    const most = Math.max(1, Math.round(rate / 100));
    const since = performance.now();
    for (let next = first; next <= last; ) {
      const due = first + ((performance.now() - since) / 1000) * rate;
      const end = Math.min(last, next + most - 1);
      if (due < end) {
        await sleep(Math.max(1, Math.min(100, ((end - due) / rate) * 1000)));
        continue;
      }
      for (const statement of workload.write(next, end)) await client.query(statement);
      next = end + 1;
    }
  } finally {
    await client.end();
  }
}
