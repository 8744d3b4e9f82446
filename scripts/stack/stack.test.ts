import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {existsSync} from 'node:fs';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {createServer} from 'node:net';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {createInterface} from 'node:readline';
import {setTimeout as delay} from 'node:timers/promises';
import {createClient} from '@clickhouse/client';
import test, {type ExecutionContext} from 'ava';
import kafkajs from 'kafkajs';
import pg from 'pg';
import {startedAt} from './lock-file.mjs';
import {skip} from './skip.ts';
import {kafkaInstalled, type Stack, type StackOptions, startStack, startTemporaryStack} from './stack.ts';
import {POSTGRES_BIN, startTestServers} from './test-servers.ts';

const FREE = {postgres: 0, kafka: 0, clickhouseHttp: 0, clickhouseNative: 0};

async function folder(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'freshet-stack-'));
  t.teardown(() => rm(dir, {recursive: true, force: true}));
  return dir;
}

async function start(
  t: ExecutionContext,
  options: Partial<StackOptions> & {dataDir: string},
): Promise<Stack> {
  const stack = await startStack({
    kafka: false,
    durable: false,
    ports: FREE,
    postgresBin: process.env[POSTGRES_BIN],
    ...options,
  });
  t.teardown(() => stack.stop());
  return stack;
}

async function postgres(stack: Stack, sql: string): Promise<unknown[]> {
  const client = new pg.Client({connectionString: stack.pgUrl});
  await client.connect();
  const {rows} = await client.query(sql).finally(() => client.end());
  return rows;
}

async function clickhouse(stack: Stack, query: string): Promise<string> {
  const client = createClient({url: stack.clickhouseUrl, keep_alive: {enabled: false}});
  const {stream} = await client.exec({query});
  const text = (await stream.toArray()).join('').trim();
  await client.close();
  return text;
}

async function topics(stack: Stack, create?: string): Promise<string[]> {
  const brokers = [stack.kafkaBrokers ?? ''];
  const admin = new kafkajs.Kafka({brokers, logLevel: kafkajs.logLevel.NOTHING}).admin();
  await admin.connect();
  if (create) await admin.createTopics({topics: [{topic: create, numPartitions: 1}]});
  return admin.listTopics().finally(() => admin.disconnect());
}

const allGone = (pids: readonly number[]) => pids.every(pid => startedAt(pid) === null);

test.serial(
  'PostgreSQL and ClickHouse keep their data when they are killed, and when the stack is stopped',
  async t => {
    const dataDir = await folder(t);
    // Of a server elsewhere, in the environment of whoever runs this.
    process.env.PGSSLMODE = 'require';
    const first = await start(t, {dataDir});
    await postgres(first, 'CREATE TABLE kept AS SELECT 7 AS n');
    await clickhouse(first, 'CREATE DATABASE d');
    await clickhouse(first, 'CREATE TABLE d.kept ENGINE = MergeTree ORDER BY n AS SELECT 7 AS n');
    t.deepEqual(await postgres(first, 'SHOW wal_level'), [{wal_level: 'logical'}]);
    t.is(await clickhouse(first, "SELECT value FROM system.settings WHERE name = 'async_insert'"), '0');

    for (const server of ['postgres', 'clickhouse'] as const) {
      await first.kill(server);
      await first.restart(server);
    }
    t.deepEqual(await postgres(first, 'SELECT n FROM kept'), [{n: 7}]);
    t.is(await clickhouse(first, 'SELECT n FROM d.kept'), '7');

    const pids = Object.values(first.pids);
    t.is(pids.length, 3);
    await first.stop();
    await gone(t, pids);

    const second = await start(t, {dataDir});
    t.deepEqual(await postgres(second, 'SELECT n FROM kept'), [{n: 7}]);
    t.is(await clickhouse(second, 'SELECT n FROM d.kept'), '7');
    await clickhouse(second, 'SYSTEM FLUSH LOGS');
    t.not(await clickhouse(second, 'SELECT count() FROM system.query_log'), '0');
    t.not(await clickhouse(second, 'SELECT count() FROM system.part_log'), '');
    await second.stop();

    const emptied = await start(t, {dataDir, fresh: true});
    t.deepEqual(await postgres(emptied, "SELECT to_regclass('kept') AS found"), [{found: null}]);
  },
);

test.serial('Kafka keeps its topics when it is killed, and when its ports change', async t => {
  if (!kafkaInstalled()) return skip(t, 'Kafka needs Java 17');
  const dataDir = path.join(await folder(t), 'jürgen 𝄞');
  const first = await start(t, {dataDir, kafka: true});
  await topics(first, 'kept');
  await first.kill('kafka');
  await first.restart('kafka');
  t.true((await topics(first)).includes('kept'));
  await first.stop();
  const second = await start(t, {dataDir, kafka: true});
  t.not(second.kafkaBrokers, first.kafkaBrokers);
  t.true((await topics(second)).includes('kept'));
});

test.serial(
  'a stack whose process is killed leaves no server behind, and its folder can be used again',
  async t => {
    const dataDir = await folder(t);
    const code = `
    const {startStack} = await import(${JSON.stringify(new URL('stack.ts', import.meta.url).href)});
    const {pids} = await startStack(${JSON.stringify({dataDir, kafka: kafkaInstalled(), durable: false, ports: FREE, postgresBin: process.env[POSTGRES_BIN]})});
    console.log(JSON.stringify(Object.values(pids)));
    setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', code]);
    t.teardown(() => parent.kill('SIGKILL'));
    parent.stderr.on('data', chunk => t.log(String(chunk)));
    const [line] = await Promise.race([
      once(createInterface({input: parent.stdout}), 'line'),
      once(parent, 'exit'),
    ]);
    const pids: number[] = JSON.parse(String(line));
    t.is(pids.length, kafkaInstalled() ? 4 : 3);
    t.false(pids.some(pid => startedAt(pid) === null));
    parent.kill('SIGKILL');
    await gone(t, pids);
    await start(t, {dataDir});
  },
);

test.serial('the folder of a temporary stack goes with it, also where Ctrl-C ends its process', async t => {
  const options = {kafka: false, postgresBin: process.env[POSTGRES_BIN]};
  const stopped = await startTemporaryStack('stack', options);
  t.true(existsSync(stopped.dataDir));
  await stopped.stop();
  t.false(existsSync(stopped.dataDir));

  const code = `
    const {startTemporaryStack} = await import(${JSON.stringify(new URL('stack.ts', import.meta.url).href)});
    console.log((await startTemporaryStack('stack', ${JSON.stringify(options)})).dataDir);
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', code]);
  t.teardown(() => parent.kill('SIGKILL'));
  const [dataDir] = await once(createInterface({input: parent.stdout}), 'line');
  t.true(existsSync(dataDir));
  parent.kill('SIGINT');
  while (existsSync(dataDir)) await delay(20); // AVA's own time-out is the limit
});

test.serial('what a killed stack and a killed reaper left running is ended by the next start', async t => {
  const dataDir = await folder(t);
  const orphan = spawn('sleep', ['600'], {detached: true, stdio: 'ignore'});
  const pid = orphan.pid ?? 0;
  t.teardown(() => orphan.kill('SIGKILL'));
  const target = {
    name: 'postgres',
    pid,
    started: startedAt(pid),
    stop: [{signal: 'SIGTERM', graceMs: 5_000}],
  };
  const namesake = {...target, pid: process.pid, started: 'another time'}; // a pid that was given again
  await writeFile(path.join(dataDir, 'running.json'), JSON.stringify([target, namesake]));
  await writeFile(path.join(dataDir, 'lock'), JSON.stringify({pid, started: 'another time'}));
  await start(t, {dataDir});
  t.true(allGone([pid]));
});

test.serial('a second stack on the same folder is refused', async t => {
  const dataDir = await folder(t);
  await start(t, {dataDir});
  await t.throwsAsync(start(t, {dataDir}), {
    name: 'StackError',
    message: new RegExp(`process ${process.pid} runs a stack on ${dataDir}`),
  });
});

test.serial('a port in use is named with its server and its setting', async t => {
  const taken = createServer().listen(0, '127.0.0.1');
  t.teardown(() => taken.close());
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  for (const [name, says] of [
    ['postgres', /PostgreSQL needs it.*FRESHET_STACK_POSTGRES_PORT/],
    ['clickhouseHttp', /ClickHouse \(HTTP\) needs it.*FRESHET_STACK_CLICKHOUSE_HTTP_PORT/],
    ['clickhouseNative', /ClickHouse \(native\) needs it.*FRESHET_STACK_CLICKHOUSE_NATIVE_PORT/],
  ] as const) {
    const error = await t.throwsAsync(start(t, {dataDir: await folder(t), ports: {...FREE, [name]: port}}));
    t.regex(error?.message ?? '', says);
    t.regex(error?.message ?? '', new RegExp(`^port ${port} `));
  }
});

test.serial('a server that ends by itself is reported, one that is killed on purpose is not', async t => {
  const stack = await start(t, {dataDir: await folder(t)});
  await stack.kill('postgres');
  process.kill(stack.pids.clickhouse ?? Number.NaN, 'SIGKILL');
  t.deepEqual(await stack.exited, {server: 'clickhouse', code: null});
});

test.serial('a server that does not come up is reported with the end of its log', async t => {
  const dataDir = await folder(t);
  const error = await t.throwsAsync(start(t, {dataDir, clickhouseUsersXml: '<clickhouse><users>'}));
  t.regex(error?.message ?? '', /^ClickHouse ended while it started\nthe end of .*clickhouse\.log:\n.*\S/s);
});

test.serial('a folder without a PostgreSQL is named, as are two PostgreSQLs at once', async t => {
  const dataDir = await folder(t);
  const error = await t.throwsAsync(start(t, {dataDir, postgresBin: dataDir}), {name: 'StackError'});
  t.regex(error?.message ?? '', new RegExp(`no PostgreSQL to start: ${dataDir}/initdb`));
  await t.throwsAsync(startTestServers({TEST_PG_URL: 'postgres://x', [POSTGRES_BIN]: dataDir}), {
    message: /TEST_PG_URL and FRESHET_TEST_POSTGRES_BIN/,
  });
});

/** Waits until processes are gone; AVA's own time-out is the limit. */
async function gone(t: ExecutionContext, pids: readonly number[]): Promise<void> {
  while (!allGone(pids)) await delay(20);
  t.true(allGone(pids));
}
