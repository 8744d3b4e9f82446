import {readdir, stat} from 'node:fs/promises';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import pg from 'pg';
import {z} from 'zod';
import {chLiteral, rows} from '../../cdc/sink/clickhouse.ts';
import {send} from '../stack/end-process.ts';
import {askPostgres, type Ground, pause, type System, type Working, type Written} from './ground.ts';
import {cpuMicros, familyCpuMicros, forgetPeak, peakMebibytes} from './process-usage.ts';
import type {Workload} from './workloads.ts';

/** What one run measured, by metric. */
export type Values = Readonly<Record<string, number>>;

/** How many changes warm a system up before those that count, and how many those are. */
export function sizes({kind, size, rate}: Workload, scale: number): {warm: number; measured: number} {
  const hundreds = (n: number, least: number): number => Math.max(least, Math.round(n / 100) * 100);
  switch (kind) {
    case 'stream':
      // As much at every scale, so that processes are as warm.
      return {warm: Math.min(20_000, hundreds(size / 50, 1_000)), measured: hundreds(size * scale, 1_000)};
    case 'snapshot':
      return {warm: 0, measured: hundreds(size * scale, 1_000)};
    case 'latency': {
      const seconds = Math.max(15, size * scale);
      return {warm: Math.max(5_000, 2 * rate!), measured: Math.max(3, Math.round(seconds * rate!))};
    }
  }
}

/** A run that has not ended by then has failed: 1,000 changes a second, and what it takes to begin, a table at a time. */
const patience = ({workload}: Ground, changes: number): number =>
  180_000 + changes + 1_000 * workload.tables.length;

/** Runs one system on one workload, from nothing. Rejects where it does not finish, or its rows are wrong. */
export async function measure(ground: Ground, system: System, scale: number): Promise<Values> {
  const size = sizes(ground.workload, scale);
  const bench = {stream: catchUp, snapshot, latency}[ground.workload.kind];
  return bench(ground, system, size);
}

type Size = ReturnType<typeof sizes>;

type Stages = Readonly<Record<string, readonly number[]>>;
type Usage = Readonly<Record<string, number>>;

/** A backlog that the slot's reader was kept from, until all of it is visible. */
async function catchUp(ground: Ground, system: System, {warm, measured}: Size): Promise<Values> {
  const {world} = ground;
  return atWork(ground, system, async working => {
    await working.ready();
    await write(ground, 1, warm);
    await timeUntil(working, await written(ground, warm), patience(ground, warm));
    const reader = await readerOf(working);
    const stages: Stages = {walsender: [reader], ...working.processes, ...serverPids(ground, system)};
    const letGo = await hold(world.pg, reader);
    try {
      await write(ground, warm + 1, warm + measured);
      await world.pg.query('CHECKPOINT'); // or it comes while time is taken
      const goal = await written(ground, warm + measured);
      const kafka = await kafkaBytes(ground);
      await Promise.all(Object.values(stages).flat().map(forgetPeak));
      const before = await cpuOf(stages);
      letGo();
      const {seconds, usage} = await timeUntil(working, goal, patience(ground, measured), () =>
        cpuOf(stages),
      );
      return {
        rows_per_s: measured / seconds,
        ...perRow(before, usage, measured),
        ...(await memoryOf(stages, working)),
        ...(system.servers.includes('broker') && {
          bytes_per_row_kafka: ((await kafkaBytes(ground)) - kafka) / measured,
        }),
        ...(await clickhouseBytes(ground, working)),
      };
    } finally {
      letGo();
    }
  });
}

/** Tables that are there before, from the start of the system's process until all rows are visible. */
async function snapshot(ground: Ground, system: System, {measured}: Size): Promise<Values> {
  const {world, stack} = ground;
  await world.pg.query('CHECKPOINT');
  const goal = await written(ground, measured);
  const servers = serverPids(ground, system);
  // Who reads a snapshot in PostgreSQL comes and goes.
  const usageOf = async (stages: Stages): Promise<Usage> => ({
    postgres: await familyCpuMicros(stack.pids.postgres!),
    ...(await cpuOf(stages)),
  });
  await Promise.all(Object.values(servers).flat().map(forgetPeak));
  const before = await usageOf({...servers, copy: [process.pid]});
  const since = performance.now();
  return atWork(ground, system, async working => {
    const stages = {...working.processes, ...servers};
    const {seconds, usage} = await timeUntil(
      working,
      goal,
      patience(ground, measured),
      () => usageOf(stages),
      since,
    );
    return {
      rows_per_s: measured / seconds,
      ...perRow(before, usage, measured),
      ...(await memoryOf(stages, working)),
      ...(await clickhouseBytes(ground, working)),
    };
  });
}

/** How many rows of a second are looked for: each answer brings all since the oldest that is missing. */
const PROBES_A_SECOND = 200;
const POLL_MS = 5;
const LATE_MS = 60_000;
const Seen = z.tuple([z.coerce.number(), z.coerce.number()]);

/** Changes at a rate: for each that is looked for, how long after its commit a reader of the target gets it. */
async function latency(ground: Ground, system: System, {warm, measured}: Size): Promise<Values> {
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

/** The value that so large a part of all does not exceed. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN;
}

/** Starts the system and stops it, however the work ends; a run whose rows are wrong rejects. */
async function atWork(
  ground: Ground,
  system: System,
  work: (working: Working) => Promise<Values>,
): Promise<Values> {
  const working = await system.start(ground);
  try {
    const values = await orFailed(working, work(working));
    await orFailed(working, working.verify?.() ?? Promise.resolve());
    return values;
  } finally {
    await working.stop();
  }
}

/** Whatever comes first: the answer, or the end of a process that should not end. */
const orFailed = <T>({failed}: Working, work: Promise<T>): Promise<T> => Promise.race([work, failed]);

const itself = (table: string): string => table;

async function write({world, workload}: Ground, first: number, last: number): Promise<void> {
  for (const statement of workload.write(first, last)) await world.pg.query(statement);
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

async function written({world, workload}: Ground, last: number): Promise<Written> {
  const {rows: found} = await world.pg.query<{lsn: string}>('SELECT pg_current_wal_lsn()::text AS lsn');
  return {
    last,
    changes: last,
    position: found[0]!.lsn,
    tail: await askPostgres(world, workload.tail(last, itself)),
    whole: await askPostgres(world, workload.whole(itself)),
  };
}

/**
 * Asks until all has arrived. The time and the usage are those before the question that was answered with yes: what
 * it saw was there by then.
 */
async function timeUntil(
  working: Working,
  goal: Written,
  withinMs: number,
  usageNow: () => Promise<Usage> = async () => ({}),
  since = performance.now(),
): Promise<{seconds: number; usage: Usage}> {
  for (;;) {
    const passed = performance.now() - since;
    const usage = await usageNow();
    if (await orFailed(working, working.arrived(goal))) return {seconds: passed / 1000, usage};
    if (passed > withinMs)
      throw new Error(
        `of changes up to ${goal.last}, not all had arrived after ${Math.round(passed / 1000)} s`,
      );
    await pause(passed);
  }
}

async function readerOf(working: Working): Promise<number> {
  for (const since = performance.now(); performance.now() - since < 30_000; await sleep(20)) {
    const pid = await working.reader();
    if (pid !== undefined) return pid;
  }
  throw new Error('no process of PostgreSQL reads the slot');
}

/**
 * Stops a process of PostgreSQL while it waits for something from outside: it could hold a lock otherwise, which
 * others then wait for. Gives what has it go on.
 */
async function hold(client: pg.Client, pid: number): Promise<() => void> {
  const letGo = (): void => send(pid, 'SIGCONT');
  for (const since = performance.now(); performance.now() - since < 60_000; await sleep(23)) {
    send(pid, 'SIGSTOP');
    await sleep(20);
    const {rows: found} = await client.query<{idle: boolean}>(
      "SELECT coalesce(wait_event_type IN ('Activity', 'Client'), false) AS idle FROM pg_stat_activity WHERE pid = $1",
      [pid],
    );
    if (found[0]?.idle) return letGo;
    letGo();
  }
  throw new Error('the reader of the slot is never idle');
}

function serverPids({stack}: Ground, system: System): Stages {
  const pids = {broker: stack.pids.kafka, clickhouse: stack.pids.clickhouse};
  return Object.fromEntries(
    system.servers.flatMap(name => {
      const pid = pids[name];
      return pid === undefined ? [] : [[name, [pid]]];
    }),
  );
}

async function cpuOf(stages: Stages): Promise<Usage> {
  const each = Object.entries(stages).map(async ([name, pids]) => {
    const micros = await Promise.all(pids.map(cpuMicros));
    return [name, micros.reduce((sum, one) => sum + one, 0)] as const;
  });
  return Object.fromEntries(await Promise.all(each));
}

/** Processor time of each stage, and of all. */
function perRow(before: Usage, after: Usage, count: number): Values {
  const each = Object.entries(after).map(
    ([stage, micros]) => [stage, (micros - (before[stage] ?? 0)) / count] as const,
  );
  return {
    cpu_us_per_row: each.reduce((sum, [, micros]) => sum + micros, 0),
    ...Object.fromEntries(each.map(([stage, micros]) => [`cpu_us_per_row_${stage}`, micros])),
  };
}

/** Peaks of each stage; `rss_mb` is the sum of the system's own processes, where it has some. */
async function memoryOf(stages: Stages, {processes}: Working): Promise<Values> {
  const peaks = async (pids: readonly number[]): Promise<number> =>
    (await Promise.all(pids.map(peakMebibytes))).reduce((sum, one) => sum + one, 0);
  const own = Object.values(processes).flat();
  const each = Object.entries(stages).map(
    async ([stage, pids]) => [`rss_mb_${stage}`, await peaks(pids)] as const,
  );
  return {
    ...(own.length > 0 && {rss_mb: await peaks(own)}),
    ...Object.fromEntries(await Promise.all(each)),
  };
}

/** What the run's topics of tables take on the broker's disk. */
async function kafkaBytes({broker, world}: Ground): Promise<number> {
  const prefix = `${world.settings.FRESHET_TOPIC_PREFIX}.public.`;
  const partitions = (await readdir(broker).catch(() => [])).filter(name => name.startsWith(prefix));
  const sizes = await Promise.all(
    partitions.map(async partition => {
      const folder = path.join(broker, partition);
      const files = (await readdir(folder).catch(() => [])).filter(name => name.endsWith('.log'));
      const found = await Promise.all(files.map(file => stat(path.join(folder, file))));
      return found.reduce((sum, {size}) => sum + size, 0);
    }),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

const Stored = z.object({bytes: z.number()});

/** What a row that is stored takes on ClickHouse's disk. */
async function clickhouseBytes({world}: Ground, {target}: Working): Promise<Values> {
  if (!target) return {};
  const [found] = await rows(
    world.client,
    Stored,
    `SELECT sum(bytes_on_disk) / sum(rows) AS bytes FROM system.parts
     WHERE active AND NOT startsWith(table, '_') AND database IN (${target.databases.map(chLiteral).join(', ')})`,
  );
  return found ? {bytes_per_row_clickhouse: found.bytes} : {};
}
