import {atWork, hold, patience, readerOf, timeUntil, write, written} from './at-work.ts';
import type {Ground, System} from './ground.ts';
import {latency} from './latency.ts';
import {familyCpuMicros, forgetPeak} from './process-usage.ts';
import {
  clickhouseBytes,
  cpuOf,
  kafkaBytes,
  memoryOf,
  perRow,
  type Stages,
  serverPids,
  type Usage,
  type Values,
} from './stages.ts';
import type {Workload} from './workloads.ts';

const WARM = 60_000;

/** How many changes come before those that count, and how many those are. */
export type Size = ReturnType<typeof sizes>;

/** How many changes warm a system up before those that count, and how many those are. */
export function sizes({kind, size, rate}: Workload, scale: number): {warm: number; measured: number} {
  const hundreds = (n: number, least: number): number => Math.max(least, Math.round(n / 100) * 100);
  switch (kind) {
    case 'stream':
      // As much at every scale, so that processes are as warm: compilers of Node and Java still work at less.
      return {warm: Math.min(WARM, hundreds(size / 10, 1_000)), measured: hundreds(size * scale, 1_000)};
    case 'snapshot':
      return {warm: 0, measured: hundreds(size * scale, 1_000)};
    case 'latency': {
      const seconds = Math.max(15, size * scale);
      return {warm: Math.max(5_000, 2 * rate!), measured: Math.max(3, Math.round(seconds * rate!))};
    }
  }
}

/** Runs one system on one workload, from nothing. Rejects where it does not finish, or its rows are wrong. */
export async function measure(ground: Ground, system: System, scale: number): Promise<Values> {
  const size = sizes(ground.workload, scale);
  const bench = {stream: catchUp, snapshot, latency}[ground.workload.kind];
  return bench(ground, system, size);
}

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
