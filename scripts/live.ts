// `npm start`: the whole pipeline on servers of its own. See --help.

import {createHash} from 'node:crypto';
import path from 'node:path';
import {parseArgs} from 'node:util';
import {withoutSecrets} from '../cdc/observe/log.ts';
import {usersXml} from '../clickhouse/access.ts';
import {startDemo} from './live/demo.ts';
import {keepRunning} from './live/keep-running.ts';
import {runOnce} from './live/once.ts';
import {loadShop} from './live/shop.ts';
import {kafkaInstalled, StackError, stackPortsFromEnv, startStack} from './stack/stack.ts';

const HELP = `npm start -- [options]
  --once            load, catch up, verify, show the views, stop everything
  --dataset FILE    the UCI Online Retail CSV (plain or gzip) instead of the made-up shop
  --rate N          orders a second of the live traffic [20]
  --fresh           throw away what an earlier run kept

Ports: FRESHET_STACK_POSTGRES_PORT [5432 or the next], FRESHET_STACK_KAFKA_PORT [9092],
FRESHET_STACK_CLICKHOUSE_HTTP_PORT [8123], FRESHET_STACK_CLICKHOUSE_NATIVE_PORT [9000]; 0 is any free one.
FRESHET_TRANSPORT=direct goes without Kafka.`;

const root = path.dirname(import.meta.dirname);
const PASSWORDS = {freshet: 'freshet', grafana: 'grafana', explorer: 'explorer'};
const SAME_SIGNAL_MS = 500;
const DATABASES = {cdc: 'cdc', analytics: 'ecommerce_analytics'};

try {
  process.exitCode = await main();
} catch (error) {
  const expected = error instanceof StackError;
  console.error(expected ? `✗ ${error.message}` : error);
  process.exitCode = 1;
}
process.exit();

async function main(): Promise<number> {
  const {values} = parseArgs({
    options: {
      once: {type: 'boolean', default: false},
      dataset: {type: 'string'},
      rate: {type: 'string', default: '20'},
      fresh: {type: 'boolean', default: false},
      help: {type: 'boolean', default: false},
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const rate = Number(values.rate);
  if (!(rate >= 0 && rate <= 10_000))
    throw new StackError(`--rate is '${values.rate}': 0 to 10000 orders a second`);
  const kafka = process.env.FRESHET_TRANSPORT !== 'direct' && kafkaInstalled();
  // Where there is no Java, the set-up has said so already.
  if (process.env.FRESHET_TRANSPORT === 'direct')
    console.log('· direct transport: PostgreSQL’s slot is the log, without Kafka');

  const stopped = new AbortController();
  let firstAt: number | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      firstAt ??= performance.now();
      stopped.abort();
      // One Ctrl-C may come twice, by the terminal and by npm. A later one waits for nothing: the reaper ends the servers.
      if (performance.now() - firstAt > SAME_SIGNAL_MS) process.exit(130);
    });
  // Each data set has a folder of its own, so that going to and fro loads nothing again.
  const dataDir = path.join(root, '.freshet', 'data', values.dataset ? folderOf(values.dataset) : 'shop');
  const stack = await startStack({
    dataDir,
    kafka,
    fresh: values.fresh,
    ports: stackPortsFromEnv(process.env),
    clickhouseUsersXml: usersXml({databases: DATABASES, passwords: PASSWORDS}),
    log: line => console.log(`· ${line}`),
  });
  stack.exited.then(({server, code}) => {
    if (stopped.signal.aborted) return;
    console.error(
      `✗ ${server} ended by itself (${code}); its log is in ${path.relative(process.cwd(), dataDir)}`,
    );
    stopped.abort();
    process.exitCode = 1;
  });
  try {
    stopped.signal.throwIfAborted();
    const shopUrl = await loadShop(stack.pgUrl, values.dataset);
    stopped.signal.throwIfAborted();
    const demo = await startDemo({stack, shopUrl, dataDir, databases: DATABASES, signal: stopped.signal});
    try {
      if (values.once) return await runOnce(demo);
      await keepRunning(demo, {rate, shopUrl, stack});
      return typeof process.exitCode === 'number' ? process.exitCode : 0;
    } finally {
      await demo.stop();
    }
  } catch (error) {
    if (stopped.signal.aborted) return firstAt === undefined ? 1 : 130;
    throw error instanceof Error ? Object.assign(error, {message: withoutSecrets(error.message)}) : error;
  } finally {
    await stack.stop();
  }
}

/** Named for the file; two files of one name in two folders are two data sets. */
function folderOf(dataset: string): string {
  const where = createHash('sha256').update(path.resolve(dataset)).digest('hex').slice(0, 8);
  return `${path.basename(dataset)}-${where}`;
}
