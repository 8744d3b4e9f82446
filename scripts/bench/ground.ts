import {z} from 'zod';
import {PipelineError} from '../../cdc/failures.ts';
import {type ClickHouseClient, rows} from '../../cdc/sink/clickhouse.ts';
import type {Stack} from '../stack/stack.ts';
import type {Named, Workload} from './workloads.ts';
import type {BenchWorld} from './world.ts';

/** What one run stands on: a database, slot, topics and target databases that nobody else has. */
export interface Ground {
  /** Of all that is this run's own: database, slot, publication, topics' prefix. */
  readonly name: string;
  readonly world: BenchWorld;
  readonly stack: Stack;
  readonly workload: Workload;
  /** For files of this run. */
  readonly folder: string;
  /** Where the broker keeps partitions. */
  readonly broker: string;
}

/** What has been written, as PostgreSQL answers: a target has it all when it answers the same. */
export interface Written {
  readonly last: number;
  readonly tail: string;
  readonly whole: string;
  /** Changes since the system began to stream. */
  readonly changes: number;
  /** Where the WAL ends, as PostgreSQL writes it. */
  readonly position: string;
}

/** A system at work. */
export interface Working {
  /** Its own processes, by stage. */
  readonly processes: Readonly<Record<string, readonly number[]>>;
  /** Resolves when it streams, and what it has set up is there. */
  ready(): Promise<void>;
  /** Rejects when a process ends that should not; never resolves. */
  readonly failed: Promise<never>;
  /** The process of PostgreSQL that reads the slot for it. */
  reader(): Promise<number | undefined>;
  /** Is all there? */
  arrived(written: Written): Promise<boolean>;
  /** Where its target is, where it has one. */
  readonly target?: {
    /** Tables as rows are read. */
    readonly current: Named;
    /** The same for new rows alone: without what makes the newest version of each row. */
    readonly rows: Named;
    readonly databases: readonly string[];
  };
  /** Rejects where values differ from PostgreSQL's. */
  verify?(): Promise<void>;
  stop(): Promise<void>;
}

/** One system. */
export interface System {
  readonly name: string;
  /** For the report: what it is, and how it is set. */
  readonly about: string;
  readonly kinds: readonly Workload['kind'][];
  /** Servers beside PostgreSQL whose work is counted. */
  readonly servers: readonly ('broker' | 'clickhouse')[];
  /** Settings of Freshet that are not as in every run. */
  readonly settings?: Readonly<Record<string, string>>;
  start(ground: Ground): Promise<Working>;
}

const Answer = z.record(z.string(), z.coerce.string());
const asText = (row: z.infer<typeof Answer> | undefined): string => JSON.stringify(row ?? null);

/** What PostgreSQL answers to a workload's question. */
export async function askPostgres({pg}: BenchWorld, sql: string): Promise<string> {
  const {rows: found} = await pg.query(sql);
  return asText(Answer.parse(found[0]));
}

/** What ClickHouse answers to it; '' where what it asks for is not there yet. */
export async function askClickHouse(client: ClickHouseClient, sql: string): Promise<string> {
  try {
    const [found] = await rows(client, Answer, sql);
    return asText(found);
  } catch (error) {
    if (error instanceof PipelineError) return '';
    throw error;
  }
}

/** The way most systems arrive: a target answers as PostgreSQL does. */
export const arrivedIn =
  ({world, workload}: Ground, current: Named) =>
  async ({last, tail, whole}: Written): Promise<boolean> =>
    (await askClickHouse(world.client, workload.tail(last, current))) === tail &&
    (await askClickHouse(world.client, workload.whole(current))) === whole;

/** The walsender of the run's slot, once it streams. */
export async function walsender({world, name}: Ground): Promise<number | undefined> {
  const {rows: found} = await world.pg.query<{pid: number}>(
    `SELECT r.pid FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
     WHERE s.slot_name = $1 AND r.state IN ('catchup', 'streaming')`,
    [name],
  );
  return found[0]?.pid;
}

/** Asks until the answer is yes, more and more seldom: the wait is never more than a fiftieth of what has passed. */
export async function until(question: () => Promise<boolean>, withinMs: number, what: string): Promise<void> {
  const since = performance.now();
  while (!(await question())) {
    const passed = performance.now() - since;
    if (passed > withinMs) throw new Error(`${what}: not after ${Math.round(passed / 1000)} s`);
    await pause(passed);
  }
}

/** The wait between two questions. */
export const pause = (passedMs: number): Promise<void> =>
  new Promise(resolve => setTimeout(resolve, Math.min(1_000, Math.max(10, passedMs / 50))));
