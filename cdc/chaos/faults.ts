import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import type {Random} from '../../scripts/shop/random.ts';
import {chName, command, rows} from '../sink/clickhouse.ts';
import type {Weather} from './network.ts';
import {PHASES, type Phase} from './phases.ts';
import type {Command} from './processes.ts';
import type {Options, Plan, Running} from './run.ts';
import type {ServerName} from './world.ts';

export interface Fault {
  readonly name: string;
  readonly servers: readonly (ServerName | 'pipeline')[];
  /** Those in which it can be; all where it is not given. */
  readonly phases?: readonly Phase['name'][];
  /** It needs servers that nobody else uses. */
  readonly own?: true;
  /** The pipeline's processes; one for all by default. */
  readonly commands?: readonly Command[];
  readonly environment?: Readonly<Record<string, string>>;
  /** For how many ms. */
  lasts(random: Random, options: Options): number;
  /** Begins it; what it gives ends it. What does not run then is started. */
  inject(running: Running): Promise<() => Promise<void>>;
}

const SERVERS = ['postgres', 'kafka', 'clickhouse'] as const;
const RUNNING = ['snapshot', 'streaming', 'DDL', 'shutdown'] as const;
const SHARED = ['capture', 'sink', 'sink'] as const;
const shortly = (random: Random): number => random.between(1_000, 3_000);
const none = async (): Promise<void> => {};

const network = (
  name: Weather,
  servers: readonly ServerName[] = SERVERS,
  lasts: Fault['lasts'] = shortly,
): Fault => ({
  name,
  servers,
  lasts,
  async inject({world, plan}) {
    const one = world.networks[plan.server as ServerName];
    await one.set(name);
    return () => one.set('fine');
  },
});

/** Kills again and again for as long as the fault lasts, what the condition finds in pg_stat_activity. */
const terminated = (name: string, condition: string): Fault => ({
  name,
  servers: ['postgres'],
  lasts: shortly,
  async inject({world, random}) {
    let over = false;
    const killing = (async () => {
      while (!over) {
        await world.sql(
          `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE application_name LIKE 'freshet%' AND datname = current_database() AND ${condition}`,
        );
        await sleep(random.between(100, 600));
      }
    })();
    return async () => {
      over = true;
      await killing;
    };
  },
});

const killed = (name: string, which: Command | undefined, commands?: readonly Command[]): Fault => ({
  name,
  servers: ['pipeline'],
  ...(commands && {commands, phases: ['snapshot', 'streaming', 'DDL']}),
  lasts: shortly,
  async inject({processes, random}) {
    const killing = sleep(random.between(0, 900)).then(() => processes.kill(which, which && 1));
    return () => killing;
  },
});

/** Where a process dies by itself, by phase; the number is how often the place is passed before, at the most. */
const PLACES: Readonly<Record<Phase['name'], readonly (readonly [string, number])[]>> = {
  start: [['snapshot.chunk', 3]],
  snapshot: [
    ['snapshot.chunk', 8],
    ['snapshot.before_chunk_done', 8],
  ],
  streaming: [
    ['kafka.before_send', 20],
    ['kafka.in_send', 20],
    ['kafka.after_send', 20],
    ['sink.before_insert', 15],
    ['sink.in_insert', 15],
    ['sink.before_commit', 3],
    ['sink.after_commit', 3],
    ['capture.before_ack', 3],
  ],
  DDL: [
    ['schema.in_place', 1],
    ['schema.before_written', 2],
    ['schema.written', 2],
    ['schema.read', 1],
    ['schema.shown', 1],
  ],
  shutdown: [
    ['kafka.in_send', 2],
    ['sink.in_insert', 2],
    ['sink.before_commit', 1],
    ['capture.before_ack', 1],
  ],
};

const HOUR_MS = 3_600_000;
const LARGE = "(SELECT string_agg(md5((random() * 1e9 + k)::text), '') FROM generate_series(1, 60000) k)";

/** Every fault, one row each: the servers before which it can happen, how it begins and how it ends. */
export const FAULTS: readonly Fault[] = [
  network('refuse'),
  network('reset'),
  network('black hole', SERVERS, (random, {silenceMs}) =>
    random.between(silenceMs >> 2, silenceMs + (silenceMs >> 1)),
  ),
  network('forget'),
  network('slow'),
  network('cut'),
  network('lose answer'),
  network('no memory', ['clickhouse']),
  {
    name: 'killed and restarted',
    servers: SERVERS,
    own: true,
    lasts: shortly,
    async inject({lane, plan}) {
      await lane.stack!.kill(plan.server as ServerName);
      return () => lane.stack!.restart(plan.server as ServerName);
    },
  },
  {
    name: 'down for a minute',
    servers: ['kafka'],
    phases: ['streaming'],
    own: true,
    lasts: (_, {downMs}) => downMs,
    async inject({lane, plan}) {
      await lane.stack!.kill(plan.server as ServerName);
      return () => lane.stack!.restart(plan.server as ServerName);
    },
  },
  terminated('walsender terminated', "backend_type = 'walsender'"),
  terminated('all backends terminated', 'true'),
  killed('SIGKILL', undefined),
  killed('SIGKILL of capture', 'capture', SHARED),
  killed('SIGKILL of a sink', 'sink', SHARED),
  {
    name: 'SIGKILL at a place',
    servers: ['pipeline'],
    phases: RUNNING,
    lasts: shortly,
    async inject({processes, start, random, plan}) {
      await processes.stop();
      const [place, most] = random.pick(PLACES[plan.phase.name]);
      start({FRESHET_FAILPOINT: `${place}:${random.between(1, most)}`});
      if (plan.phase.name === 'shutdown') await sleep(1_500);
      return () => processes.kill(); // where it has not come to the place
    },
  },
  {
    name: 'rebalances',
    servers: ['pipeline'],
    phases: RUNNING,
    commands: SHARED,
    lasts: random => random.between(2_500, 4_000),
    async inject({processes, random}) {
      const changing = (async () => {
        processes.start('sink');
        await sleep(random.between(300, 1_500));
        await processes.stop('sink', 1);
        await sleep(random.between(0, 500));
        await processes.kill('sink', 1);
      })();
      changing.catch(() => {}); // thrown at its end
      return () => changing;
    },
  },
  {
    name: 'too many parts',
    servers: ['clickhouse'],
    phases: RUNNING,
    lasts: shortly,
    async inject({world: {ch, settings}}) {
      const database = settings.FRESHET_CLICKHOUSE_DATABASE;
      const targets = await rows(
        ch,
        z.object({name: z.string()}),
        "SELECT name FROM system.tables WHERE database = {database: String} AND name LIKE 'public\\\\_\\\\_%'",
        {database},
      );
      const all = async (sql: (table: string) => string): Promise<void> => {
        for (const {name} of targets)
          await command(ch, sql(chName(database, name))).catch(error => {
            if (error.code !== 'ch.not_set_up') throw error; // it was replaced meanwhile
          });
      };
      await all(table => `SYSTEM STOP MERGES ${table}`);
      await all(
        table => `ALTER TABLE ${table} MODIFY SETTING parts_to_delay_insert = 1, parts_to_throw_insert = 1`,
      );
      return async () => {
        await all(table => `ALTER TABLE ${table} RESET SETTING parts_to_delay_insert, parts_to_throw_insert`);
        await all(table => `SYSTEM START MERGES ${table}`);
      };
    },
  },
  {
    name: 'messages above the limit',
    servers: ['kafka'],
    phases: ['streaming', 'DDL', 'shutdown'],
    environment: {FRESHET_MESSAGE_MAX_BYTES: String(1 << 20)},
    lasts: shortly,
    async inject({workload, random}) {
      const id = random.between(1, 20);
      await workload.run(`INSERT INTO docs VALUES (-${id}, 'large', ${LARGE}, '[]')`);
      await workload.run(`UPDATE docs SET title = 'small' WHERE id = -${id}`);
      await workload.run(`UPDATE docs SET id = -${id + 100}, body = ${LARGE} WHERE id = -${id}`);
      await workload.run(`UPDATE docs SET title = 'last' WHERE id < 0`);
      return none;
    },
  },
  {
    name: 'clock stepped back',
    servers: ['pipeline'],
    phases: RUNNING,
    lasts: shortly,
    async inject({processes}) {
      processes.stepBack(HOUR_MS);
      return none;
    },
  },
  {
    name: 'started again an hour earlier',
    servers: ['pipeline'],
    phases: ['snapshot', 'streaming', 'DDL', 'shutdown'],
    lasts: shortly,
    async inject({processes, start}) {
      await processes.stop();
      start({FRESHET_TEST_CLOCK_BACK: String(HOUR_MS)});
      return none;
    },
  },
];

const named = (wanted: string | undefined, is: (part: string) => boolean): boolean =>
  wanted === undefined || wanted.split(',').some(is);

/**
 * Every fault in each of its phases before each of its servers.
 * @param wanted lists of names with commas between; of a fault's name a part is enough
 */
export function plans(
  seed: number,
  wanted: {readonly fault?: string; readonly phase?: string; readonly server?: string} = {},
): Plan[] {
  return FAULTS.flatMap(fault =>
    fault.servers.flatMap(server =>
      PHASES.filter(({name}) => !fault.phases || fault.phases.includes(name)).map(phase => ({
        fault,
        phase,
        server,
        seed,
      })),
    ),
  ).filter(
    ({fault, phase, server}) =>
      named(wanted.fault, part => fault.name.includes(part)) &&
      named(wanted.phase, part => phase.name === part) &&
      named(wanted.server, part => server === part),
  );
}
