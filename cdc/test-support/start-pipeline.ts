import {randomBytes} from 'node:crypto';
import pg from 'pg';
import {z} from 'zod';
import {kafkaClient} from '../kafka/client.ts';
import type {Log} from '../observe/log.ts';
import {run} from '../pipeline.ts';
import {caughtUp} from '../reconcile/position.ts';
import {loadSettings, type Settings} from '../settings/settings.ts';
import {type ClickHouseClient, clickhouseClient, command, rows} from '../sink/clickhouse.ts';
import {dropDatabase} from './drop-database.ts';

/** What is to be undone at the end, in reverse order: ava's `t`, or something that lives longer than one test. */
export interface Scope {
  teardown(undo: () => unknown): void;
}

export interface World {
  /** A superuser's connection to a database of this test's own. */
  readonly pg: pg.Client;
  readonly ch: ClickHouseClient;
  readonly settings: Settings;
  readonly environment: Readonly<Record<string, string>>;
  readonly log: Log & {readonly lines: string[]};
  /** Rows of a query; `{cdc}` and `{an}` stand for the two databases. */
  query(sql: string): Promise<Record<string, unknown>[]>;
  caughtUp(timeoutMs?: number): Promise<void>;
}

export interface Running extends World {
  /** Ends the pipeline in good order. */
  stop(): Promise<void>;
  start(): void;
  /** Resolves with what the pipeline ended with, null after a stop. */
  readonly ended: () => Promise<unknown>;
}

/** Servers come from the runner; see scripts/test.ts. */
export function server(
  name: 'TEST_PG_URL' | 'TEST_CLICKHOUSE_URL' | 'TEST_KAFKA_BROKERS',
): string | undefined {
  return process.env[name] || undefined;
}

/** Without Kafka the same tests go by the direct transport. */
export const transport = (): 'kafka' | 'direct' => (server('TEST_KAFKA_BROKERS') ? 'kafka' : 'direct');

/**
 * A database, slot, topics and target databases of this test's own; all are dropped at its end. The FRESHET_PG_URL of
 * the overrides names the server.
 */
export async function makeWorld(
  t: Scope,
  sql: string,
  overrides: Record<string, string> = {},
): Promise<World> {
  const pgUrl = overrides.FRESHET_PG_URL ?? server('TEST_PG_URL');
  const chUrl = server('TEST_CLICKHOUSE_URL');
  if (!pgUrl || !chUrl) throw new Error('run tests by `npm test`: it starts the servers');
  const id = `t${randomBytes(5).toString('hex')}`;
  // On a connection of its own each time: the server may be another one at the end.
  const asAdmin = async (work: (admin: pg.Client) => Promise<unknown>): Promise<void> => {
    const admin = new pg.Client(pgUrl);
    await admin.connect();
    await work(admin);
    await admin.end();
  };
  await asAdmin(admin => admin.query(`CREATE DATABASE ${id}`));
  const url = new URL(pgUrl);
  url.pathname = `/${id}`;
  const client = new pg.Client(url.href);
  client.on('error', () => {});
  await client.connect();
  const environment = {
    FRESHET_SLOT: id,
    FRESHET_PUBLICATION: id,
    FRESHET_TOPIC_PREFIX: id,
    FRESHET_TRANSPORT: transport(),
    FRESHET_KAFKA_BROKERS: server('TEST_KAFKA_BROKERS') ?? '',
    FRESHET_CLICKHOUSE_URL: chUrl,
    FRESHET_CLICKHOUSE_DATABASE: `${id}_cdc`,
    FRESHET_ANALYTICS_DATABASE: `${id}_an`,
    FRESHET_FLUSH_MS: '50',
    ...overrides,
    FRESHET_PG_URL: url.href,
  };
  const settings = loadSettings(environment);
  const ch = clickhouseClient(settings);
  const over = new AbortController();
  t.teardown(async () => {
    over.abort(); // a wait that a failed test left behind
    await client.end().catch(() => {});
    await asAdmin(admin => dropDatabase(admin, id));
    for (const database of [settings.FRESHET_CLICKHOUSE_DATABASE, settings.FRESHET_ANALYTICS_DATABASE]) {
      await command(ch, `DROP DATABASE IF EXISTS ${database} SYNC`);
    }
    await ch.close();
    if (settings.FRESHET_TRANSPORT === 'kafka') await dropTopics(settings);
  });
  if (sql) await client.query(sql);
  return {
    pg: client,
    ch,
    settings,
    environment,
    log: memoryLog(),
    query: text =>
      rows(
        ch,
        z.record(z.string(), z.unknown()),
        text
          .replaceAll('{cdc}', settings.FRESHET_CLICKHOUSE_DATABASE)
          .replaceAll('{an}', settings.FRESHET_ANALYTICS_DATABASE),
      ),
    caughtUp: async timeoutMs => {
      await caughtUp(ch, settings, timeoutMs, over.signal);
    },
  };
}

async function dropTopics(settings: Settings): Promise<void> {
  const admin = kafkaClient(settings, memoryLog()).admin();
  await admin.connect();
  const topics = (await admin.listTopics()).filter(topic =>
    topic.startsWith(`${settings.FRESHET_TOPIC_PREFIX}.`),
  );
  if (topics.length > 0) await admin.deleteTopics({topics});
  await admin.disconnect();
}

/** A world with the whole pipeline running in this process; stopped at the test's end. */
export async function startPipeline(
  t: Scope,
  sql: string,
  overrides: Record<string, string> = {},
): Promise<Running> {
  const world = await makeWorld(t, sql, overrides);
  let stopper = new AbortController();
  let ended: Promise<unknown> = Promise.resolve(null);
  const start = (): void => {
    stopper = new AbortController();
    ended = run({settings: world.settings, log: world.log, signal: stopper.signal}).then(
      () => null,
      error => error,
    );
  };
  const stop = async (): Promise<void> => {
    stopper.abort();
    await ended;
  };
  start();
  t.teardown(stop); // runs before the world's own: ava goes backwards
  return {
    ...world,
    start,
    stop,
    ended: () => ended,
    // What ended the pipeline is the better message than a wait that ran out.
    caughtUp: timeoutMs =>
      Promise.race([
        world.caughtUp(timeoutMs),
        ended.then(error => {
          throw error ?? new Error('the pipeline was stopped');
        }),
      ]),
  };
}

function memoryLog(): World['log'] {
  const lines: string[] = [];
  const at =
    (level: string) =>
    (facts: object, message: string): void => {
      lines.push(`${level} ${message} ${JSON.stringify(facts)}`);
    };
  return {lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error')};
}
