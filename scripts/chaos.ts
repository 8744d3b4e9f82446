// `npm run chaos`: every fault in every phase before every server, each run compared with PostgreSQL.
import {randomBytes} from 'node:crypto';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {Command} from 'commander';
import {plans} from '../cdc/chaos/faults.ts';
import {isGood, type Plan, type Result, runPlan} from '../cdc/chaos/run.ts';
import type {Lane} from '../cdc/chaos/world.ts';
import {Target} from '../cdc/history/place.ts';
import {textTable} from '../cdc/observe/text-table.ts';
import {atLeastOne, whole} from './options.ts';
import {kafkaMissing, startTemporaryStack} from './stack/stack.ts';
import {startTestServers} from './stack/test-servers.ts';

interface Options {
  readonly seed: number;
  readonly count: number;
  readonly jobs: number;
  readonly fault?: string;
  readonly phase?: string;
  readonly server?: string;
  readonly down: number;
  readonly silence: number;
  readonly logs: boolean;
}

const options = new Command('chaos')
  .description(
    'Runs every fault in every phase; exit code 1 where rows are lost or invented, or it does not recover.',
  )
  .option('--seed <seed>', 'decides moments, lengths and rows', whole, 1)
  .option('--count <times>', 'how often, with the following seeds', atLeastOne, 1)
  .option('--jobs <runs>', 'how many at a time', atLeastOne, 3)
  .option('--fault <name>', 'only faults whose names have this in them; several with commas')
  .option('--phase <name>', 'start, snapshot, streaming, DDL or shutdown alone, the same way')
  .option('--server <name>', 'postgres, kafka, clickhouse or pipeline alone, the same way')
  .option('--down <seconds>', 'how long the broker is down in the run of that name', whole, 60)
  .option('--silence <seconds>', 'after how long a silence servers are given up', whole, 6)
  .option('--logs', 'the end of the log also of runs that went well', false)
  .parse()
  .opts<Options>();

// The pipeline is started hundreds of times.
process.env.NODE_COMPILE_CACHE ??= path.join(tmpdir(), 'freshet-compile-cache');
process.exitCode = await chaos();
process.exit(); // kafkajs may keep a timer

async function chaos(): Promise<number> {
  const missing = kafkaMissing();
  if (missing !== undefined) {
    console.error(`These runs are by way of Kafka, and there is none: ${missing}`);
    return 1;
  }
  const all = Array.from({length: options.count}, (_, i) => plans(options.seed + i, options)).flat();
  if (all.length === 0) {
    console.error('no fault, phase and server are called that together');
    return 1;
  }
  const own = all.filter(({fault}) => fault.own);
  const others = all.filter(({fault}) => !fault.own);
  console.log(`${all.length} runs from seed ${options.seed}, ${options.jobs} at a time`);
  const results: Result[] = [];
  const startedAt = Date.now();
  const work = async (servers: Omit<Lane, 'target'>, queue: Plan[]): Promise<void> => {
    const id = `x${randomBytes(4).toString('hex')}`;
    const target = await Target.create(servers.servers.clickhouseUrl, id);
    for (let plan = queue.shift(); plan; plan = queue.shift()) {
      const result = await runPlan({...servers, target}, plan, {
        downMs: options.down * 1000,
        silenceMs: options.silence * 1000,
      });
      results.push(result);
      tell(result, results, {all: all.length, startedAt});
    }
    await target.drop();
  };
  // Servers that are killed are of one lane alone, which helps with the others' runs when its own are done.
  await Promise.all([
    own.length > 0 && withOwnServers(lane => work(lane, own)),
    others.length > 0 &&
      withServers(async lane => {
        const lanes = Math.max(1, options.jobs - (own.length > 0 ? 1 : 0));
        await Promise.all(Array.from({length: lanes}, () => work(lane, others)));
      }),
  ]);
  console.log(`\n${table(results)}\n`);
  const bad = results.filter(result => !isGood(result));
  const sum = (of: (result: Result) => number): number => results.reduce((n, result) => n + of(result), 0);
  console.log(
    `${results.length} runs in ${minutes(startedAt)} min, ${sum(({changes}) => changes)} transactions; ` +
      `rows lost ${sum(({lost}) => lost)}, rows invented ${sum(({invented}) => invented)}, runs that failed ${bad.length}`,
  );
  return bad.length > 0 ? 1 : 0;
}

function minutes(since: number): string {
  return ((Date.now() - since) / 60_000).toFixed(1);
}

function title({fault, phase, server, seed}: Plan): string {
  return `${fault.name}, ${server}, ${phase.name}, seed ${seed}`;
}

function tell(
  result: Result,
  results: readonly Result[],
  {all, startedAt}: {all: number; startedAt: number},
): void {
  const left = ((Date.now() - startedAt) / 60_000 / results.length) * (all - results.length);
  const {recovered, seconds, plan} = result;
  console.log(
    `${results.length}/${all} ${isGood(result) ? 'ok' : 'FAILED'}  ${title(plan)}: ` +
      `${recovered === undefined ? 'never recovered' : `${recovered.toFixed(1)} s`} of ${seconds.toFixed(1)} s, ${left.toFixed(1)} min left`,
  );
  if (!isGood(result) || options.logs) console.log(`\n${report(result)}\n`);
}

/** A line for each fault, server and phase: its runs, and the worst of them. */
function table(results: readonly Result[]): string {
  const groups = Map.groupBy(results, ({plan: {fault, server, phase}}) =>
    [fault.name, server, phase.name].join('\t'),
  );
  const order = plans(0).map(({fault, server, phase}) => [fault.name, server, phase.name].join('\t'));
  return textTable(
    [...groups]
      .sort(([a], [b]) => order.indexOf(a) - order.indexOf(b))
      .map(([name, group]) => {
        const [fault, server, phase] = name.split('\t');
        const slowest = Math.max(...group.map(({recovered}) => recovered ?? Number.POSITIVE_INFINITY));
        return {
          fault,
          before: server,
          phase,
          runs: group.length,
          'seconds to recover': slowest === Number.POSITIVE_INFINITY ? 'never' : slowest.toFixed(1),
          'rows lost': group.reduce((n, {lost}) => n + lost, 0),
          'rows invented': group.reduce((n, {invented}) => n + invented, 0),
          failed: group.filter(result => !isGood(result)).length || '',
        };
      }),
  );
}

function report({plan, problems, lost, invented, log}: Result): string {
  return [`${title(plan)}; ${lost} rows lost, ${invented} invented`, ...problems, log].join('\n');
}

async function withServers(work: (lane: Omit<Lane, 'target'>) => Promise<void>): Promise<void> {
  const {env, stop} = await startTestServers(process.env);
  const {TEST_PG_URL = '', TEST_CLICKHOUSE_URL = '', TEST_KAFKA_BROKERS = ''} = env;
  try {
    await work({
      servers: {pgUrl: TEST_PG_URL, clickhouseUrl: TEST_CLICKHOUSE_URL, brokers: TEST_KAFKA_BROKERS},
    });
  } finally {
    await stop();
  }
}

async function withOwnServers(work: (lane: Omit<Lane, 'target'>) => Promise<void>): Promise<void> {
  const stack = await startTemporaryStack('chaos', {kafka: true});
  try {
    const {pgUrl, clickhouseUrl, kafkaBrokers} = stack;
    await work({servers: {pgUrl, clickhouseUrl, brokers: kafkaBrokers ?? ''}, stack});
  } finally {
    await stack.stop();
  }
}
