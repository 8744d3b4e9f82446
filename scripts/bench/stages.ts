import {readdir, stat} from 'node:fs/promises';
import path from 'node:path';
import {z} from 'zod';
import {chLiteral, rows} from '../../cdc/sink/clickhouse.ts';
import type {Ground, System, Working} from './ground.ts';
import {cpuMicros, peakMebibytes} from './process-usage.ts';

/** What one run measured, by metric. */
export type Values = Readonly<Record<string, number>>;

/** Processes by what they do for the system, and microseconds of each. */
export type Stages = Readonly<Record<string, readonly number[]>>;
export type Usage = Readonly<Record<string, number>>;

/** The servers whose work is counted for the system. */
export function serverPids({stack}: Ground, system: System): Stages {
  const pids = {broker: stack.pids.kafka, clickhouse: stack.pids.clickhouse};
  return Object.fromEntries(
    system.servers.flatMap(name => {
      const pid = pids[name];
      return pid === undefined ? [] : [[name, [pid]]];
    }),
  );
}

/** Processor time of each stage so far. */
export async function cpuOf(stages: Stages): Promise<Usage> {
  const each = Object.entries(stages).map(async ([name, pids]) => {
    const micros = await Promise.all(pids.map(cpuMicros));
    return [name, micros.reduce((sum, one) => sum + one, 0)] as const;
  });
  return Object.fromEntries(await Promise.all(each));
}

/** Processor time of each stage, and of all. */
export function perRow(before: Usage, after: Usage, count: number): Values {
  const each = Object.entries(after).map(
    ([stage, micros]) => [stage, (micros - (before[stage] ?? 0)) / count] as const,
  );
  return {
    cpu_us_per_row: each.reduce((sum, [, micros]) => sum + micros, 0),
    ...Object.fromEntries(each.map(([stage, micros]) => [`cpu_us_per_row_${stage}`, micros])),
  };
}

/** Peaks of each stage; `rss_mb` is the sum of the system's own processes, where it has some. */
export async function memoryOf(stages: Stages, {processes}: Working): Promise<Values> {
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
export async function kafkaBytes({broker, world}: Ground): Promise<number> {
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
export async function clickhouseBytes({world}: Ground, {target}: Working): Promise<Values> {
  if (!target) return {};
  const [found] = await rows(
    world.client,
    Stored,
    `SELECT sum(bytes_on_disk) / sum(rows) AS bytes FROM system.parts
     WHERE active AND NOT startsWith(table, '_') AND database IN (${target.databases.map(chLiteral).join(', ')})`,
  );
  return found ? {bytes_per_row_clickhouse: found.bytes} : {};
}
