// `npm run bench:views`: how fast the views answer while the shop goes on, what keeping them costs, and how late they are.
import {mkdir, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {Command} from 'commander';
import {z} from 'zod';
import {textTable} from '../cdc/observe/text-table.ts';
import {pauseAfter} from '../cdc/rollups/keep.ts';
import {Rollups} from '../cdc/rollups/worker.ts';
import {loadSettings} from '../cdc/settings/settings.ts';
import {type ClickHouseClient, clickhouseClient, command, rows} from '../cdc/sink/clickhouse.ts';
import {ACCESS} from '../clickhouse/access.ts';
import {takeLock} from '../clickhouse/lock.ts';
import {migrate} from '../clickhouse/migrate.ts';
import {statementsOf} from '../clickhouse/migration-files.ts';
import {createShopTables} from '../clickhouse/testing/warehouse.ts';
import {describeMachine, type Machine} from './bench/machine.ts';
import {percentile} from './bench/percentile.ts';
import {cpuMicros} from './bench/process-usage.ts';
import {median, number} from './bench/report.ts';
import {QUESTIONS, type Question} from './bench/views/queries.ts';
import {BenchShop} from './bench/views/shop.ts';
import {atLeastOne, positive} from './options.ts';
import {startTemporaryStack} from './stack/stack.ts';

const {orders, repeats, seconds, out, final} = new Command('bench:views')
  .description('Asks the views what dashboards ask, while changes come in.')
  .option('--orders <millions...>', 'how many orders, each with two lines', ['1', '10', '30'])
  .option('--repeats <times>', 'how often each is measured', atLeastOne, 5)
  .option('--seconds <seconds>', 'how long each time', positive, 20)
  .option('--no-final', 'leave out the same questions by FINAL')
  .option('--out <folder>', 'where the report goes', 'docs/benchmarks')
  .parse()
  .opts<{orders: string[]; repeats: number; seconds: number; out: string; final: boolean}>();

/** What is changed each time, and how often: 1,000 changes a second. */
const TICK_MS = 200;
const ORDERS_A_TICK = 40;
const READERS = 16;
/** Of the rollups. */
const SOURCES = ['orders', 'order_items', 'customers', 'products'];
/** How long as much is inserted as can be: a run of the rollups, the pause behind it, and the next one. */
const COST_MS = 15_000;
const DATABASES = {cdc: 'bench_cdc', analytics: 'bench_an'};

/** As dashboards ask; without their limits, which a question by FINAL would pass. */
const READER = {os_thread_priority: String(ACCESS.grafana.limits.os_thread_priority.value)};

interface Row {
  readonly view: string;
  readonly range: string;
  readonly orders: number;
  readonly metric: string;
  readonly unit: string;
  readonly median: number;
  readonly runs: readonly number[];
}
const found: Row[] = [];

const stack = await startTemporaryStack('bench-views', {kafka: false});
try {
  const machine = await describeMachine(stack);
  console.log(textTable(Object.entries(machine).map(([what, text]) => ({what, found: text}))));
  for (const millions of orders) await measure(Math.round(Number(millions) * 1e6));
  await write(machine);
} finally {
  await stack.stop();
}
process.exit();

function client(): ClickHouseClient {
  const settings = loadSettings({
    FRESHET_PG_URL: stack.pgUrl,
    FRESHET_CLICKHOUSE_URL: stack.clickhouseUrl,
    FRESHET_TRANSPORT: 'direct',
    FRESHET_SILENCE_MS: '600000',
  });
  return clickhouseClient(settings);
}

async function measure(count: number): Promise<void> {
  const ch = client();
  for (const name of Object.values(DATABASES)) await command(ch, `DROP DATABASE IF EXISTS ${name} SYNC`);
  await createShopTables({
    run: async sql => {
      for (const query of statementsOf(sql, DATABASES)) await command(ch, query);
    },
  });
  const shop = new BenchShop(ch, DATABASES.cdc, count);
  const filled = await timed(() => shop.fill());
  await migrate({client: ch, databases: DATABASES});
  const rollups = await holder(ch);
  const built = await timed(() => rollups.settle());
  await migrate({client: ch, databases: DATABASES});
  console.log(
    `${number(count)} orders: written in ${filled.toFixed(0)} s, rollups filled in ${built.toFixed(0)} s`,
  );
  put(count, 'rollups', 'all', 'fill_s', 's', [built]);
  await sizes(ch, count);
  // From here on the shop is at work, and the rollups follow.
  const over = new AbortController();
  const measureLate = await freshness(ch);
  const working = Promise.all([changes(shop, over.signal), follow(rollups, over.signal)]);
  const fresh = measureLate(over.signal);
  const one = new Map<Question, number[][]>(QUESTIONS.map(question => [question, []]));
  const byFinal = new Map<Question, number[]>(QUESTIONS.map(question => [question, []]));
  const mixed: number[][] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    const times = await ask(1, shop, seconds * 1000);
    for (const question of QUESTIONS) one.get(question)!.push(times.get(question) ?? []);
    mixed.push([...(await ask(READERS, shop, seconds * 1000)).values()].flat());
  }
  over.abort();
  const late = await fresh;
  await working;
  // Behind all that: it takes seconds, and everything else would wait for it.
  for (let repeat = 0; final && repeat < 3; repeat++)
    for (const question of QUESTIONS.filter(({view}) => view !== 'data_freshness'))
      byFinal.get(question)!.push(await answer(ch, question, '_v1', shop));
  for (const question of QUESTIONS) {
    const {view, range} = question;
    for (const p of [50, 95, 99])
      put(
        count,
        view,
        range,
        `p${p}_ms`,
        'ms',
        one.get(question)!.map(times => percentile(times, p / 100)),
      );
    if (byFinal.get(question)!.length > 0)
      put(count, `${view} by FINAL`, range, 'p50_ms', 'ms', byFinal.get(question)!);
  }
  for (const p of [50, 95, 99])
    put(
      count,
      'all',
      `${READERS} readers`,
      `p${p}_ms`,
      'ms',
      mixed.map(times => percentile(times, p / 100)),
    );
  for (const p of [50, 99])
    put(count, 'rollups', 'behind their tables', `p${p}_ms`, 'ms', [percentile(late, p / 100)]);
  await cost(ch, shop, rollups, count); // last: it makes of today a day of millions of orders
  console.log(textTable(lines(count)));
  await ch.close();
}

async function holder(ch: ClickHouseClient): Promise<Rollups> {
  const lock = await takeLock(ch, DATABASES, 'rollups', {patienceMs: 0, fromHolder: true});
  const quiet = (): void => {};
  const log = {debug: quiet, info: quiet, warn: console.warn, error: console.error};
  const rollups = new Rollups({client: ch, names: DATABASES, lock: lock!, log});
  await rollups.takeOver();
  return rollups;
}

async function follow(rollups: Rollups, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const took = await timed(() => rollups.cycle());
    await sleep(pauseAfter(took * 1000));
  }
}

async function changes(shop: BenchShop, signal: AbortSignal): Promise<void> {
  for (let at = performance.now(); !signal.aborted; at += TICK_MS) {
    await shop.change(ORDERS_A_TICK);
    await sleep(Math.max(0, at + TICK_MS - performance.now()));
  }
}

/** Until what was in the tables is in the views, in ms. */
async function freshness(ch: ClickHouseClient): Promise<(signal: AbortSignal) => Promise<number[]>> {
  const count = async (sql: string): Promise<number> =>
    (await rows(ch, z.object({n: z.coerce.number()}), sql))[0]!.n;
  const newest = (): Promise<number> => count(`SELECT max(id) AS n FROM ${DATABASES.cdc}.public__orders`);
  // New orders are of today, whatever else changes.
  const shown = (): Promise<number> =>
    count(`SELECT sum(orders) AS n FROM ${DATABASES.analytics}.daily_sales_summary WHERE day >= yesterday()`);
  const [first, before] = [await newest(), await shown()];
  return async signal => {
    const late: number[] = [];
    while (!signal.aborted) {
      const wanted = before + (await newest()) - first;
      const startedAt = performance.now();
      while (!signal.aborted && (await shown()) < wanted) await sleep(20);
      if (!signal.aborted) late.push(performance.now() - startedAt);
      await sleep(500);
    }
    return late;
  };
}

async function ask(readers: number, shop: BenchShop, forMs: number): Promise<Map<Question, number[]>> {
  const times = new Map<Question, number[]>(QUESTIONS.map(question => [question, []]));
  const until = performance.now() + forMs;
  const reader = async (start: number): Promise<void> => {
    const ch = client();
    for (let i = start; performance.now() < until; i++) {
      const question = QUESTIONS[i % QUESTIONS.length]!;
      times.get(question)!.push(await answer(ch, question, '', shop));
    }
    await ch.close();
  };
  await Promise.all(Array.from({length: readers}, (_, i) => reader(i)));
  return times;
}

/** ms */
async function answer(
  ch: ClickHouseClient,
  {view, sql}: Question,
  suffix: string,
  shop: BenchShop,
): Promise<number> {
  const customer = 1 + Math.floor(Math.random() * shop.customers);
  const query = sql
    .replace('{}', `${DATABASES.analytics}.${view}${suffix}`)
    .replace('{customer}', String(customer));
  const startedAt = performance.now();
  const answered = await ch.query({query, format: 'JSONCompactEachRow', clickhouse_settings: READER});
  await answered.text();
  return performance.now() - startedAt;
}

/** What the layer costs where as much is inserted as can be: rows a second with it and without. */
async function cost(ch: ClickHouseClient, shop: BenchShop, rollups: Rollups, count: number): Promise<void> {
  const pid = stack.pids.clickhouse!;
  const insert = async (): Promise<{rate: number; cpu: number}> => {
    const [before, startedAt] = [await cpuMicros(pid), performance.now()];
    let inserted = 0;
    while (performance.now() - startedAt < COST_MS) inserted += await shop.change(2_000);
    const rate = inserted / ((performance.now() - startedAt) / 1000);
    return {rate, cpu: ((await cpuMicros(pid)) - before) / inserted};
  };
  const [alone, kept]: {rate: number; cpu: number}[][] = [[], []];
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const table of SOURCES) await command(ch, `DETACH TABLE ${DATABASES.cdc}._marks_${table}_mv SYNC`);
    alone!.push(await insert());
    for (const table of SOURCES) await command(ch, `ATTACH TABLE ${DATABASES.cdc}._marks_${table}_mv`);
    const over = new AbortController();
    const following = follow(rollups, over.signal);
    kept!.push(await insert());
    over.abort();
    await following;
    await rollups.settle();
  }
  put(
    count,
    'inserts',
    'without rollups',
    'rows_per_s',
    'rows/s',
    alone!.map(({rate}) => rate),
  );
  put(
    count,
    'inserts',
    'with rollups',
    'rows_per_s',
    'rows/s',
    kept!.map(({rate}) => rate),
  );
  put(
    count,
    'inserts',
    'without rollups',
    'cpu_us_per_row',
    'µs/row',
    alone!.map(({cpu}) => cpu),
  );
  put(
    count,
    'inserts',
    'with rollups',
    'cpu_us_per_row',
    'µs/row',
    kept!.map(({cpu}) => cpu),
  );
}

async function sizes(ch: ClickHouseClient, count: number): Promise<void> {
  const tables = await rows(
    ch,
    z.object({name: z.string(), bytes: z.coerce.number()}),
    `SELECT table AS name, sum(bytes_on_disk) AS bytes FROM system.parts WHERE active AND database = '${DATABASES.cdc}' GROUP BY name ORDER BY bytes DESC`,
  );
  for (const {name, bytes} of tables) put(count, name, 'all', 'mebibytes', 'MiB', [bytes / 2 ** 20]);
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}

function put(
  count: number,
  view: string,
  range: string,
  metric: string,
  unit: string,
  runs: readonly number[],
): void {
  const rounded = runs.map(value => Number(value.toPrecision(4)));
  found.push({view, range, orders: count, metric, unit, median: median(rounded), runs: rounded});
}

function lines(count: number): Record<string, string>[] {
  const own = found.filter(row => row.orders === count);
  const pairs = [...new Map(own.map(({view, range}) => [`${view}\t${range}`, {view, range}])).values()];
  return pairs.map(({view, range}) => ({
    view,
    range,
    figures: own
      .filter(row => row.view === view && row.range === range)
      .map(row => `${row.metric} ${number(row.median)}`)
      .join(' · '),
  }));
}

async function write(machine: Machine): Promise<void> {
  await mkdir(out, {recursive: true});
  const about = {at: new Date().toISOString(), machine, repeats, seconds};
  await writeFile(path.join(out, 'views.json'), `${JSON.stringify({...about, rows: found}, null, 1)}\n`);
  const counts = [...new Set(found.map(row => row.orders))];
  const text = counts.map(count => {
    const body = lines(count).map(({view, range, figures}) => `| ${view} | ${range} | ${figures} |`);
    return `## ${number(count)} orders\n\n| view or table | range | medians |\n|---|---|---|\n${body.join('\n')}\n`;
  });
  await writeFile(
    path.join(out, 'views.md'),
    `# The views, as last measured\n\n\`npm run bench:views\` at ${about.at}: each ${repeats} times for ${seconds} s, with 1,000 changes a second coming in.\n\n${Object.entries(
      machine,
    )
      .map(([name, value]) => `- ${name}: ${value}`)
      .join('\n')}\n\n${text.join('\n')}`,
  );
}
