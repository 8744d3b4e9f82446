import {type ChildProcess, spawn} from 'node:child_process';
import {tmpdir} from 'node:os';
import path from 'node:path';
import pg from 'pg';
import {dropTopics} from '../../cdc/history/place.ts';
import {loadSettings, type Settings} from '../../cdc/settings/settings.ts';
import {type ClickHouseClient, clickhouseClient, command} from '../../cdc/sink/clickhouse.ts';
import {dropDatabase} from '../../cdc/test-support/drop-database.ts';
import {quietLog} from '../../cdc/test-support/quiet-log.ts';
import {endChild} from '../stack/end-process.ts';
import {startTestServers} from '../stack/test-servers.ts';
import {peakMebibytes} from './process-usage.ts';

const MAIN = path.join(import.meta.dirname, '../../cdc/main.ts');

/** As the Dockerfile has it. */
const AS_IN_DOCKER = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '262144',
  NODE_COMPILE_CACHE: path.join(tmpdir(), 'freshet-compile-cache'),
};

export interface Run {
  readonly child: ChildProcess;
  /** The exit code. */
  readonly ended: Promise<number | null>;
  /** The most memory that the process held, in MiB, by the operating system. */
  mebibytes(): number;
}

/** A database of PostgreSQL with rows, two of ClickHouse, and commands on them. */
export interface BenchWorld {
  readonly pg: pg.Client;
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  /** Starts a command of Freshet in a process of its own. */
  freshet(...args: readonly string[]): Run;
}

/**
 * Runs `work` in a world of that name with these tables, on the servers of TEST_PG_URL and so on, or its own; all of it
 * is dropped afterwards.
 */
export async function withWorld(
  name: string,
  {
    sql,
    overrides = {},
    servers: given = process.env,
  }: {
    sql: string;
    overrides?: Readonly<Record<string, string>>;
    /** In place of the environment's. */
    servers?: Readonly<Record<string, string | undefined>>;
  },
  work: (world: BenchWorld) => Promise<void>,
): Promise<void> {
  const servers = await startTestServers(given);
  const {
    TEST_PG_URL: pgUrl = '',
    TEST_CLICKHOUSE_URL: clickhouseUrl = '',
    TEST_KAFKA_BROKERS: brokers = '',
  } = servers.env;
  const url = new URL(pgUrl);
  url.pathname = `/${name}`;
  const environment = {
    FRESHET_PG_URL: url.href,
    FRESHET_SLOT: name,
    FRESHET_PUBLICATION: name,
    FRESHET_TRANSPORT: 'direct',
    FRESHET_TOPIC_PREFIX: name,
    FRESHET_KAFKA_BROKERS: brokers,
    FRESHET_CLICKHOUSE_URL: clickhouseUrl,
    FRESHET_CLICKHOUSE_DATABASE: `${name}_cdc`,
    FRESHET_ANALYTICS_DATABASE: `${name}_an`,
    FRESHET_HTTP_PORT: '0',
    FRESHET_LOG_LEVEL: 'warn',
    ...overrides,
  };
  const settings = loadSettings(environment);
  const client = clickhouseClient(settings);
  const running = new Set<Run>();
  const freshet = (...args: readonly string[]): Run => {
    const child = spawn(process.execPath, [MAIN, ...args], {
      // The pipe on stdin ends it when this process ends, however it ends.
      env: {...process.env, ...AS_IN_DOCKER, FRESHET_STACK_CHILD: '1', ...environment},
      stdio: ['pipe', 'inherit', 'inherit'],
    });
    child.stdin?.on('error', () => {});
    let peak = 0;
    const timer = setInterval(async () => {
      peak = (await peakMebibytes(child.pid ?? 0)) || peak;
    }, 100);
    const ended = new Promise<number | null>(resolve => {
      child.once('close', code => {
        clearInterval(timer);
        running.delete(run);
        resolve(code);
      });
    });
    const run: Run = {child, ended, mebibytes: () => Math.round(peak)};
    running.add(run);
    return run;
  };
  const admin = new pg.Client(pgUrl);
  await admin.connect();
  await admin.query(`CREATE DATABASE ${name}`);
  const database = new pg.Client(url.href);
  await database.connect();
  try {
    await database.query(sql);
    await work({pg: database, client, settings, freshet});
  } finally {
    for (const run of running) await endChild(run.child, run.ended);
    await database.end();
    await dropDatabase(admin, name);
    await admin.end();
    if (settings.FRESHET_TRANSPORT === 'kafka') await dropTopics(settings, quietLog());
    for (const database of [settings.FRESHET_CLICKHOUSE_DATABASE, settings.FRESHET_ANALYTICS_DATABASE])
      await command(client, `DROP DATABASE IF EXISTS ${database} SYNC`);
    await client.close();
    await servers.stop();
  }
}

/** Inserts lines of orders, the first and the last id included: texts, money, times and JSON, about 170 bytes each. */
export const insertLinesSql = (first: number | string, last: number | string): string => `
  INSERT INTO lines SELECT i, i / 7, 'SKU-' || i % 100000, 'a line as it is printed on the invoice ' || md5(i::text),
    i % 50, (i % 1000000) / 1000.0, timestamptz '2024-01-01 00:00Z' + i * interval '3.217 s',
    jsonb_build_object('batch', i / 1000, 'gift', i % 10 = 0) FROM generate_series(${first}::bigint, ${last}) i`;

/** The table, with so many lines. */
export const linesSql = (count: number): string => `
  CREATE TABLE lines (id bigint PRIMARY KEY, order_id bigint NOT NULL, product text NOT NULL, description text,
    quantity int NOT NULL, unit_price numeric(12,3) NOT NULL, ordered_at timestamptz NOT NULL, note jsonb NOT NULL);
  ${insertLinesSql(1, count)};
  ANALYZE lines`;
