import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {createWriteStream, rmSync} from 'node:fs';
import {writeFile} from 'node:fs/promises';
import {createServer} from 'node:net';
import path from 'node:path';
import {createInterface} from 'node:readline';
import {caughtUp} from '../../cdc/reconcile/position.ts';
import {rollupsCaughtUp} from '../../cdc/rollups/position.ts';
import {type Environment, loadSettings, type Settings} from '../../cdc/settings/settings.ts';
import {type ClickHouseClient, clickhouseClient} from '../../cdc/sink/clickhouse.ts';
import {type Stack, StackError} from '../stack/stack.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
/** `npx freshet …` in this folder finds the running demo by it; it is gone when the demo is. */
const CONFIG = path.join(root, '.freshet', 'freshet.env');
const FIRST_PAGE_PORT = 8080;
const GRACE_MS = 7_000;

/** The pipeline running as a process of its own against the stack. */
export interface Demo {
  readonly settings: Settings;
  readonly client: ClickHouseClient;
  readonly logFile: string;
  /** Resolves when the pipeline has ended by itself. */
  readonly ended: Promise<void>;
  readonly signal: AbortSignal;
  caughtUp(): Promise<void>;
  stop(): Promise<void>;
}

/** What is set in the environment may tune the pipeline, but the demo decides where it runs, and as whom. */
export const withoutOtherServers = (environment: Environment): Environment =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => !OF_OTHER_SERVERS.test(name)));

const OF_OTHER_SERVERS =
  /^FRESHET_(CONFIG|PG_(PASSWORD|TLS)|KAFKA_(TLS|SASL)|CLICKHOUSE_(USER|PASSWORD|TLS)|TOPIC_REPLICATION|TABLES_)/;

export async function startDemo(options: {
  stack: Stack;
  shopUrl: string;
  dataDir: string;
  databases: {cdc: string; analytics: string};
  signal: AbortSignal;
}): Promise<Demo> {
  const {stack, shopUrl, dataDir, databases, signal} = options;
  const own = {
    FRESHET_PG_URL: shopUrl,
    FRESHET_TRANSPORT: stack.kafkaBrokers ? 'kafka' : 'direct',
    FRESHET_KAFKA_BROKERS: stack.kafkaBrokers ?? '',
    FRESHET_CLICKHOUSE_URL: stack.clickhouseUrl,
    FRESHET_CLICKHOUSE_NATIVE_PORT: String(stack.clickhouseNative.port),
    FRESHET_CLICKHOUSE_DATABASE: databases.cdc,
    FRESHET_ANALYTICS_DATABASE: databases.analytics,
    FRESHET_HTTP_PORT: process.env.FRESHET_HTTP_PORT ?? String(await freePort(FIRST_PAGE_PORT)),
  };
  const environment = {...withoutOtherServers(process.env), ...own};
  const settings = loadSettings(environment);
  process.once('exit', () => rmSync(CONFIG, {force: true}));
  await writeFile(
    CONFIG,
    Object.entries(own)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(''),
  );
  const logFile = path.join(dataDir, 'freshet.log');
  const log = createWriteStream(logFile);
  const child = spawn(process.execPath, [path.join(root, 'cdc', 'main.ts'), 'run'], {
    env: {...environment, FRESHET_STACK_CHILD: '1'},
    // A process group of its own: a terminal's Ctrl-C reaches it by us, when traffic has stopped.
    detached: true,
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  createInterface({input: child.stderr}).on('line', line => {
    log.write(`${line}\n`);
    tellProgress(line);
    if (/"level":"(warn|error)"|^freshet:/.test(line)) console.error(`! ${readable(line)}`);
  });
  let stopping = false;
  const exited = once(child, 'exit');
  const ended = exited.then(([code]) => {
    if (!stopping)
      console.error(
        `✗ the pipeline ended by itself (${code}); its log is ${path.relative(process.cwd(), logFile)}`,
      );
  });
  const client = clickhouseClient(settings);
  return {
    settings,
    client,
    logFile,
    ended,
    signal,
    caughtUp: async () => {
      const stop = new Promise<never>((_, reject) => {
        ended.then(() => reject(new StackError('the pipeline ended before it had caught up')));
        signal.addEventListener('abort', () => reject(new StackError('stopped')), {once: true});
      });
      const shown = caughtUp(client, settings, 600_000).then(() =>
        rollupsCaughtUp(client, settings, 600_000),
      );
      await Promise.race([shown, stop]);
    },
    stop: async () => {
      stopping = true;
      child.kill('SIGTERM');
      const late = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
      await exited;
      clearTimeout(late);
      await client.close();
      log.end();
    },
  };
}

/** How far a snapshot is: on a terminal in one line that is written over, elsewhere in lines of their own. */
function tellProgress(line: string): void {
  const reading = /"reading":(true|false)/.exec(line)?.[1];
  if (reading === undefined) return;
  const text = `  ${readable(line)}`;
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${text}${reading === 'false' ? '\n' : ''}`);
  else console.log(text);
}

/** A log line of the pipeline for a person. */
function readable(line: string): string {
  if (!line.startsWith('{')) return line;
  const {msg = line, hint} = JSON.parse(line) as {msg?: string; hint?: string};
  return hint ? `${msg}\n    ${hint}` : msg;
}

/** The port, or the next one that nobody listens on. */
async function freePort(first: number): Promise<number> {
  for (let port = first; port < first + 100; port++) {
    const server = createServer();
    const free = await new Promise<boolean>(resolve => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (free) {
      server.close();
      await once(server, 'close');
      return port;
    }
  }
  return 0;
}
