// `npm run bench`: Freshet and its peers in turn, on the same servers, with the same work.
import {existsSync} from 'node:fs';
import {mkdir, readFile, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {Command} from 'commander';
import pg from 'pg';
import {textTable} from '../cdc/observe/text-table.ts';
import {installDebezium} from './bench/debezium.ts';
import type {System} from './bench/ground.ts';
import {COMMIT, describeMachine, LOAD, type Machine} from './bench/machine.ts';
import {measure, sizes} from './bench/measure.ts';
import {
  failure,
  markdown,
  number,
  type Outcome,
  outcomesOf,
  Report,
  summarise,
  tables,
} from './bench/report.ts';
import {SYSTEMS} from './bench/systems.ts';
import {WORKLOADS, type Workload} from './bench/workloads.ts';
import {withWorld} from './bench/world.ts';
import {atLeastOne, positive} from './options.ts';
import {kafkaInstalled, type Stack, StackError, startTemporaryStack} from './stack/stack.ts';

interface Options {
  readonly workloads?: string;
  readonly systems?: string;
  readonly repeats: number;
  readonly scale: number;
  readonly out: string;
  readonly continue: boolean;
}

const options = new Command('bench')
  .description('Runs Freshet and its peers on the same servers in turn; exit code 1 where a run fails.')
  .option('--workloads <name>', 'only workloads whose names have this in them; several with commas')
  .option('--systems <name>', 'only systems, the same way')
  .option('--repeats <times>', 'how often each is run', atLeastOne, 5)
  .option('--scale <factor>', 'how much work: 1 is a backlog of a million rows', positive, 1)
  .option('--out <folder>', 'where the report goes', 'docs/benchmarks')
  .option('--continue', 'go on with the report that is there, which was broken off', false)
  .addHelpText(
    'after',
    `\nWorkloads: ${WORKLOADS.map(({name}) => name).join(', ')}\nSystems: ${SYSTEMS.map(({name}) => name).join(', ')}`,
  )
  .parse()
  .opts<Options>();

try {
  process.exitCode = await bench();
} catch (error) {
  if (!(error instanceof StackError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
process.exit(); // kafkajs may keep a timer

async function bench(): Promise<number> {
  if (process.platform !== 'linux' || !kafkaInstalled())
    throw new StackError(
      'This needs Linux, whose /proc tells processor time, and Kafka, which needs Java 17.',
    );
  const plan = chosen(WORKLOADS, options.workloads).flatMap(workload => {
    const systems = chosen(SYSTEMS, options.systems).filter(
      ({name, kinds}) => kinds.includes(workload.kind) && (workload.systems?.includes(name) ?? true),
    );
    return Array.from({length: options.repeats}, (_, i) =>
      systems.map(system => ({workload, system, repeat: i + 1})),
    ).flat();
  });
  if (plan.length === 0) throw new StackError('No workload and system are called that together: see --help.');
  if (plan.some(({system}) => system.name === 'debezium')) await installDebezium();
  const startedAt = Date.now();
  let stack: Stack | undefined;
  try {
    stack = await startTemporaryStack('bench', {kafka: true});
    await calm(stack);
    const machine = await describeMachine(stack);
    const earlier = options.continue ? await earlierReport(machine) : undefined;
    const outcomes: Outcome[] = [...outcomesOf(earlier?.rows ?? []), ...(earlier?.failed ?? [])];
    const done = Map.groupBy(outcomes, ({workload, system}) => `${workload} ${system}`);
    const left = plan.filter(
      ({workload, system, repeat}) => repeat > (done.get(`${workload.name} ${system.name}`)?.length ?? 0),
    );
    console.log(
      `${left.length} runs\n${textTable(Object.entries(machine).map(([what, found]) => ({what, found})))}`,
    );
    const report = (): Report => ({
      machine: earlier?.machine ?? machine,
      scale: options.scale,
      repeats: options.repeats,
      at: earlier?.at ?? new Date(startedAt).toISOString(),
      rows: summarise(outcomes),
      failed: outcomes.flatMap(({values, failed = '', ...line}) => (values ? [] : [{...line, failed}])),
    });
    for (const [at, one] of left.entries()) {
      const outcome = await run(stack, at, one);
      outcomes.push(outcome);
      const minutes = ((Date.now() - startedAt) / 60_000 / (at + 1)) * (left.length - at - 1);
      console.log(`${at + 1}/${left.length} ${told(outcome)}, ${minutes.toFixed(1)} min left`);
      await write(report()); // what is broken off leaves something
    }
    for (const [title, lines] of tables(report()))
      if (lines.length > 0) console.log(`\n${title}\n${textTable(lines)}`);
    const {failed} = report();
    for (const line of failed) console.log(`✗ ${failure(line)}`);
    console.log(`\nwritten to ${options.out}`);
    return failed.length > 0 ? 1 : 0;
  } finally {
    await stack?.stop();
  }
}

/** The report that is gone on with: on the same machine and of as much work, or figures would not compare. It names every commit. */
async function earlierReport(machine: Machine): Promise<Report> {
  const file = path.join(options.out, 'latest.json');
  if (!existsSync(file)) throw new StackError(`There is no report to go on with: ${file}`);
  const earlier = Report.parse(JSON.parse(await readFile(file, 'utf8')));
  const same = (of: Machine): string => JSON.stringify({...of, [COMMIT]: '', [LOAD]: ''});
  if (same(earlier.machine) !== same(machine) || earlier.scale !== options.scale)
    throw new StackError('The report that is there is of another machine, or another scale.');
  const commits = [earlier.machine[COMMIT], machine[COMMIT]];
  return {...earlier, machine: {...earlier.machine, [COMMIT]: [...new Set(commits)].join(', ')}};
}

function chosen<T extends {readonly name: string}>(all: readonly T[], names: string | undefined): T[] {
  const wanted = names?.split(',').filter(name => name !== '');
  return all.filter(({name}) => !wanted || wanted.some(part => name.includes(part)));
}

/** What comes by itself while time is taken would fall on whoever runs then; and a walsender that is held is not to be given up. */
async function calm({pgUrl}: Stack): Promise<void> {
  const client = new pg.Client(pgUrl);
  await client.connect();
  for (const setting of [
    'autovacuum = off',
    'wal_sender_timeout = 0',
    "max_wal_size = '32GB'",
    "checkpoint_timeout = '1d'",
  ])
    await client.query(`ALTER SYSTEM SET ${setting}`);
  await client.query('SELECT pg_reload_conf()');
  await client.end();
}

async function run(
  stack: Stack,
  at: number,
  {workload, system, repeat}: {workload: Workload; system: System; repeat: number},
): Promise<Outcome> {
  const outcome = {workload: workload.name, system: system.name, repeat};
  const name = `bench_${at + 1}`;
  const folder = path.join(stack.dataDir, name);
  await mkdir(folder);
  const {warm, measured} = sizes(workload, options.scale);
  let done: Outcome = {...outcome, failed: 'it was not measured'};
  try {
    await withWorld(
      name,
      {
        sql: workload.setup(warm + measured),
        overrides: {
          FRESHET_TRANSPORT: 'kafka',
          FRESHET_SILENCE_MS: '3600000',
          FRESHET_LOG_LEVEL: 'error',
          ...system.settings,
        },
        servers: {
          TEST_PG_URL: stack.pgUrl,
          TEST_CLICKHOUSE_URL: stack.clickhouseUrl,
          TEST_KAFKA_BROKERS: stack.kafkaBrokers ?? '',
        },
      },
      async world => {
        // A backlog is written in commits that nobody waits for.
        if (workload.kind === 'stream') await world.pg.query('SET synchronous_commit = off');
        const ground = {
          name,
          world,
          stack,
          workload,
          folder,
          broker: path.join(stack.dataDir, 'kafka', 'data'),
        };
        done = {...outcome, values: await measure(ground, system, options.scale)};
      },
    );
    return done;
  } catch (error) {
    return {...outcome, failed: error instanceof Error ? error.message : String(error)};
  }
}

function told({workload, system, repeat, values, failed}: Outcome): string {
  const what = `${workload}, ${system}, repeat ${repeat}`;
  if (!values) return `FAILED ${what}: ${failed}`;
  const {rows_per_s, p50_ms, p99_ms, cpu_us_per_row} = values;
  return rows_per_s === undefined
    ? `${what}: p50 ${number(p50_ms)} ms, p99 ${number(p99_ms)} ms`
    : `${what}: ${number(rows_per_s)} rows/s, ${number(cpu_us_per_row)} µs of CPU a row`;
}

async function write(report: Report): Promise<void> {
  await mkdir(options.out, {recursive: true});
  const about = {
    workloads: WORKLOADS.filter(({name}) => report.rows.some(({workload}) => workload === name)),
    systems: SYSTEMS.filter(({name}) => report.rows.some(({system}) => system === name)),
  };
  await writeFile(path.join(options.out, 'latest.md'), markdown(report, about));
  await writeFile(path.join(options.out, 'latest.json'), `${JSON.stringify(report, null, 2)}\n`);
}
