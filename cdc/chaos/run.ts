import {setTimeout as sleep} from 'node:timers/promises';
import pg from 'pg';
import {createRandom, type Random} from '../../scripts/shop/random.ts';
import {asPipelineError} from '../failures.ts';
import {rowsOfClickHouse, rowsOfPostgres} from '../history/as-text.ts';
import {readTables} from '../history/catalog.ts';
import {allBehind, markPosition} from '../reconcile/position.ts';
import {verify} from '../reconcile/verify.ts';
import type {Fault} from './faults.ts';
import type {Phase} from './phases.ts';
import {type Command, Processes} from './processes.ts';
import {TABLES_SQL, Workload} from './workload.ts';
import {type Lane, type ServerName, type World, withWorld} from './world.ts';

/** What one run is: a fault of a server (or of the pipeline's own process) in a phase, from a seed. */
export interface Plan {
  readonly fault: Fault;
  readonly phase: Phase;
  readonly server: ServerName | 'pipeline';
  readonly seed: number;
}

export interface Result {
  readonly plan: Plan;
  /** From the end of the fault until all was seen; undefined where that never came. */
  readonly recovered: number | undefined;
  /** Rows of PostgreSQL that ClickHouse does not show, or not with these values. */
  readonly lost: number;
  readonly invented: number;
  /** What else was not as it must be. */
  readonly problems: readonly string[];
  /** The end of the pipeline's log. */
  readonly log: string;
  readonly changes: number;
  readonly seconds: number;
}

/** What faults and phases work on. */
export interface Running {
  readonly plan: Plan;
  readonly world: World;
  readonly lane: Lane;
  readonly random: Random;
  readonly processes: Processes;
  readonly workload: Workload;
  /** Starts what does not run of the pipeline's processes. */
  start(more?: Readonly<Record<string, string>>): void;
  caughtUp(): Promise<void>;
}

/** How long after its fault a pipeline may need. */
const RECOVERY_MS = 120_000;
/** Changes go on for so long after the fault. */
const AFTER_MS = 400;
const POLL_MS = 200;
const TOLD_LINES = 40;

export interface Options {
  /** How long the broker is down in the run of that name. */
  readonly downMs: number;
  /** After how long a silence servers are given up; on a machine with much else to do a short one is a false alarm. */
  readonly silenceMs: number;
}

/** Runs one fault, compares, and never throws for what the pipeline does. */
export async function runPlan(lane: Lane, plan: Plan, options: Options): Promise<Result> {
  const {fault, phase, server, seed} = plan;
  const random = createRandom(seed, `${fault.name} ${phase.name} ${server}`);
  const startedAt = performance.now();
  const problems: string[] = [];
  let recovered: number | undefined;
  let unequal = {lost: 0, invented: 0};
  const settings = {...phase.environment, ...fault.environment};
  return withWorld(
    lane,
    {random, settings, bare: phase.name === 'start', silenceMs: options.silenceMs},
    async world => {
      await world.sql(TABLES_SQL);
      const processes = new Processes(world.environment);
      const workload = new Workload(world.url, random);
      const commands: readonly Command[] = fault.commands ?? ['run'];
      const running: Running = {
        plan,
        world,
        lane,
        random,
        processes,
        workload,
        start(more) {
          for (const command of new Set(commands)) {
            const missing = commands.filter(one => one === command).length - processes.count(command);
            for (let i = 0; i < missing; i++) processes.start(command, more);
          }
        },
        caughtUp: async () => {
          await Promise.race([allSeen(world), processes.failed]);
        },
      };
      try {
        await phase.reach(running);
        const lift = await fault.inject(running);
        const lasts = sleep(fault.lasts(random, options));
        await phase.during(running);
        await lasts;
        await lift();
        const liftedAt = performance.now();
        running.start();
        await sleep(AFTER_MS);
        await workload.stop();
        await running.caughtUp();
        recovered = (performance.now() - liftedAt) / 1000;
        unequal = await compare(world);
        for (const {table, verdict, reason} of await verify({client: world.ch, settings: world.settings}))
          if (verdict !== 'equal') problems.push(`verify: ${table} is ${verdict} ${reason}`);
        for (const [name, {carried}] of Object.entries(world.networks))
          if (carried === 0) problems.push(`nothing went through the network before ${name}`);
        await processes.stop();
      } catch (error) {
        problems.push(error instanceof Error ? error.message : String(error));
      } finally {
        await workload.stop().catch(error => problems.push(`workload: ${error}`));
        await processes.kill();
      }
      return {
        plan,
        recovered,
        ...unequal,
        problems: [...new Set(problems)],
        log: processes.log.split('\n').slice(-TOLD_LINES).join('\n'),
        changes: workload.done,
        seconds: (performance.now() - startedAt) / 1000,
      };
    },
  );
}

/** A table that is set aside may come back by itself, so that is waited for as well. */
async function allSeen({ch, settings}: World): Promise<void> {
  const position = await markPosition(settings);
  const deadline = performance.now() + RECOVERY_MS;
  for (;;) {
    const behind = await allBehind(ch, settings, position).catch(error => {
      if (asPipelineError(error).code === 'ch.not_set_up') return undefined;
      throw error;
    });
    if (behind?.length === 0) return;
    if (performance.now() > deadline) {
      const states = behind?.map(({name, state, reason}) => `${name} (${state}${reason && `: ${reason}`})`);
      throw new Error(`not seen after ${RECOVERY_MS / 1000} s: ${states?.join(', ') ?? 'no tables yet'}`);
    }
    await sleep(POLL_MS);
  }
}

export const isGood = ({recovered, lost, invented, problems}: Result): boolean =>
  recovered !== undefined && lost === 0 && invented === 0 && problems.length === 0;

/** All rows of all tables, by nothing that the product does. */
async function compare({url, ch, settings}: World): Promise<{lost: number; invented: number}> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    let [lost, invented] = [0, 0];
    for (const table of await readTables(client)) {
      if (table.schema !== 'public') continue;
      const counts = new Map<string, number>();
      for (const row of await rowsOfPostgres(client, table)) counts.set(row, (counts.get(row) ?? 0) + 1);
      const shown = await rowsOfClickHouse(ch, settings.FRESHET_ANALYTICS_DATABASE, table.name, table);
      for (const row of shown) counts.set(row, (counts.get(row) ?? 0) - 1);
      for (const count of counts.values()) {
        lost += Math.max(0, count);
        invented += Math.max(0, -count);
      }
    }
    return {lost, invented};
  } finally {
    await client.end();
  }
}
