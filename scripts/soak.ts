// `npm run soak`: histories made from seeds, each compared with PostgreSQL and with a new snapshot.
import {spawn} from 'node:child_process';
import {Command} from 'commander';
import {Place, type Servers} from '../cdc/history/place.ts';
import {copyWithPlanted, PLANTED} from '../cdc/history/planted.ts';
import {report, runSeed, type SeedResult} from '../cdc/history/seeds.ts';
import {atLeastOne, whole} from './options.ts';
import {startTestServers} from './stack/test-servers.ts';

const TOLD_EVERY_MS = 10_000;

interface Options {
  readonly from: number;
  readonly seed?: number;
  readonly count?: number;
  readonly jobs: number;
  readonly steps: number;
  readonly schemaChanges: boolean;
  readonly kafka: boolean;
  readonly shrink: number;
  readonly untilFound: boolean;
  readonly planted?: string;
}

const options = new Command('soak')
  .description('Runs histories made from seeds; exit code 1 where one of them differs.')
  .option('--from <seed>', 'the first seed', whole, 1)
  .option('--seed <seed>', 'this seed alone, or the first of --count', whole)
  .option('--count <histories>', 'how many; 1 with --seed, otherwise 500', atLeastOne)
  .option('--jobs <histories>', 'how many at a time', atLeastOne, 3)
  .option('--steps <steps>', 'the most steps of a history; on average it is half of that', atLeastOne, 640)
  .option('--no-schema-changes', 'rows alone')
  .option('--no-kafka', 'by the direct transport alone')
  .option('--shrink <seconds>', 'how long a smaller history that differs too is looked for', whole, 0)
  .option('--until-found', 'ends with the first that differs', false)
  .option('--planted <name>', `plants a bug in a copy of the tree: ${Object.keys(PLANTED).join(', ')}`)
  .parse()
  .opts<Options>();

const servers = await startTestServers(process.env);
try {
  process.exitCode = options.planted === undefined ? await soak() : await findPlanted(options.planted);
} finally {
  await servers.stop();
}
process.exit(); // kafkajs may keep a timer

async function soak(): Promise<number> {
  const first = options.seed ?? options.from;
  const count = options.count ?? (options.seed === undefined ? 500 : 1);
  const {
    TEST_PG_URL: pgUrl = '',
    TEST_CLICKHOUSE_URL: clickhouseUrl = '',
    TEST_KAFKA_BROKERS: brokers = '',
  } = servers.env;
  console.log(`${count} histories from seed ${first}, ${options.jobs} at a time; servers: ${servers.from}`);
  const results: SeedResult[] = [];
  const startedAt = Date.now();
  let toldAt = startedAt;
  let next = first;
  let over = false;
  const job = async (): Promise<void> => {
    const place = await Place.create({pgUrl, clickhouseUrl, brokers} satisfies Servers);
    try {
      while (next < first + count && !over) {
        const result = await runSeed(
          place,
          next++,
          {kafka: brokers !== '', schemaChanges: options.schemaChanges, mostSteps: options.steps},
          options.shrink * 1000,
        );
        results.push(result);
        if (result.differences.length > 0) {
          over ||= options.untilFound;
          console.log(`\nDIFFERENT after ${results.length} histories. ${report(result)}\n`);
        }
        if (Date.now() - toldAt > TOLD_EVERY_MS) {
          toldAt = Date.now();
          console.log(progress(results, count, startedAt));
        }
      }
    } finally {
      await place.drop();
    }
  };
  await Promise.all(Array.from({length: Math.min(options.jobs, count)}, job));
  console.log(summary(results, startedAt));
  return results.some(({differences}) => differences.length > 0) ? 1 : 0;
}

function progress(results: readonly SeedResult[], count: number, startedAt: number): string {
  const each = (Date.now() - startedAt) / 1000 / results.length;
  const left = ((count - results.length) * each) / 60;
  const different = results.filter(({differences}) => differences.length > 0).length;
  return `${results.length} of ${count} histories, ${each.toFixed(1)} s each, ${left.toFixed(1)} min left, ${different} different`;
}

function summary(results: readonly SeedResult[], startedAt: number): string {
  const median = (of: (result: SeedResult) => number): number =>
    results.map(of).sort((a, b) => a - b)[Math.floor(results.length / 2)] ?? 0;
  const different = results.filter(({differences}) => differences.length > 0).map(({seed}) => seed);
  return [
    `${results.length} histories in ${((Date.now() - startedAt) / 60_000).toFixed(1)} min`,
    `median of a history: ${median(r => r.operations)} operations, ${median(r => r.errors)} refused statements, ` +
      `${median(r => r.restarts)} restarts (${median(r => r.kills)} by SIGKILL), ${median(r => r.schemaChanges)} schema changes`,
    different.length > 0 ? `different: seeds ${different.sort((a, b) => a - b).join(', ')}` : 'none differs',
  ].join('\n');
}

/** The same run in a copy of the tree that has the bug: it must be found. */
async function findPlanted(name: string): Promise<number> {
  const folder = await copyWithPlanted(name);
  const args = process.argv
    .slice(2)
    .filter((arg, i, all) => arg !== '--planted' && all[i - 1] !== '--planted');
  const child = spawn(process.execPath, ['scripts/soak.ts', '--until-found', ...args], {
    cwd: folder.path,
    env: {...process.env, ...servers.env},
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', text => {
    out += text;
  });
  const code = await new Promise(resolve => child.on('close', resolve));
  await folder.remove();
  const found = /DIFFERENT after (\d+) histories\. seed (\d+).*\n(.*)/.exec(out);
  if (code === 1 && found) {
    console.log(
      `${name}: found after ${found[1]} histories, at seed ${found[2]}: ${found[3]?.slice(0, 300)}`,
    );
    return 0;
  }
  console.log(out);
  console.log(`${name}: NOT found`);
  return 1;
}
