import {randomBytes} from 'node:crypto';
import pg from 'pg';
import type {Random} from '../../scripts/shop/random.ts';
import type {Stack} from '../../scripts/stack/stack.ts';
import {dropTopics, type Servers, type Target} from '../history/place.ts';
import {loadSettings, type Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, clickhouseClient, command} from '../sink/clickhouse.ts';
import {dropDatabase} from '../test-support/drop-database.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {Network} from './network.ts';

export type ServerName = 'postgres' | 'kafka' | 'clickhouse';

/** Servers that runs go to; with `stack` they are of this lane alone, and may be killed. */
export interface Lane {
  readonly servers: Servers;
  readonly stack?: Stack;
  /** Databases of ClickHouse that one run after the other uses: making them takes longer than most faults. */
  readonly target: Target;
}

export interface WorldOptions {
  readonly random: Random;
  readonly settings: Readonly<Record<string, string>>;
  /** Databases of ClickHouse of this run alone, which the pipeline is to make itself. */
  readonly bare: boolean;
  /** Servers are given up after so long a silence; the default would make each black hole a minute. */
  readonly silenceMs: number;
}

/** A database of one run, and a network before each server. */
export interface World {
  /** The database itself, past the network. */
  readonly url: string;
  readonly settings: Settings;
  readonly ch: ClickHouseClient;
  /** Of the pipeline: by way of the networks. */
  readonly environment: Readonly<Record<string, string>>;
  readonly networks: Readonly<Record<ServerName, Network>>;
  /** Runs SQL by a connection of its own. */
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>;
}

/** Runs `work` in a new world, which is dropped afterwards, however that ends. */
export async function withWorld<T>(
  {servers, target}: Lane,
  {random, settings: overrides, bare, silenceMs}: WorldOptions,
  work: (world: World) => Promise<T>,
): Promise<T> {
  const id = `x${randomBytes(5).toString('hex')}`;
  const on = (database: string, port?: number): string => {
    const url = new URL(servers.pgUrl);
    url.pathname = `/${database}`;
    if (port !== undefined) {
      url.hostname = '127.0.0.1';
      url.port = String(port);
      // The server, too, gives up who is silent, and lets go of the slot.
      url.searchParams.set('options', `-c wal_sender_timeout=${silenceMs}`);
    }
    return url.href;
  };
  const admin = async <R>(use: (client: pg.Client) => Promise<R>, database?: string): Promise<R> => {
    const client = new pg.Client({
      connectionString: database ? on(database) : servers.pgUrl,
      connectionTimeoutMillis: 60_000,
    });
    client.on('error', () => {});
    try {
      await client.connect();
      return await use(client);
    } finally {
      await client.end().catch(() => {});
    }
  };
  const clickhouse = new URL(servers.clickhouseUrl);
  const postgres = new URL(servers.pgUrl);
  const [brokerHost = '', brokerPort = ''] = servers.brokers.split(':');
  const networks = {
    postgres: await Network.start({host: postgres.hostname, port: Number(postgres.port), random}),
    clickhouse: await Network.start({host: clickhouse.hostname, port: Number(clickhouse.port), random}),
    kafka: await Network.start({host: brokerHost, port: Number(brokerPort), random, kafka: true}),
  };
  const plain = {
    FRESHET_SLOT: id,
    FRESHET_PUBLICATION: id,
    FRESHET_TOPIC_PREFIX: id,
    FRESHET_CLICKHOUSE_DATABASE: bare ? `${id}_cdc` : target.names.cdc,
    FRESHET_ANALYTICS_DATABASE: bare ? `${id}_an` : target.names.analytics,
    FRESHET_FLUSH_MS: '100',
    FRESHET_TOPIC_PARTITIONS: '3',
    FRESHET_KAFKA_SESSION_MS: '6000',
    FRESHET_SILENCE_MS: String(silenceMs),
    ...overrides,
  };
  const environment = {
    ...plain,
    FRESHET_PG_URL: on(id, networks.postgres.port),
    FRESHET_CLICKHOUSE_URL: `http://127.0.0.1:${networks.clickhouse.port}`,
    FRESHET_KAFKA_BROKERS: `127.0.0.1:${networks.kafka.port}`,
  };
  const settings = loadSettings({
    ...plain,
    FRESHET_PG_URL: on(id),
    FRESHET_CLICKHOUSE_URL: servers.clickhouseUrl,
    FRESHET_KAFKA_BROKERS: servers.brokers,
  });
  const ch = clickhouseClient(settings);
  try {
    await admin(client => client.query(`CREATE DATABASE ${id}`));
    return await work({
      url: on(id),
      settings,
      ch,
      environment,
      networks,
      sql: (text, values) => admin(async client => (await client.query(text, values)).rows, id),
    });
  } finally {
    await Promise.all(Object.values(networks).map(network => network.close()));
    await admin(client => dropDatabase(client, id));
    if (!bare) await target.clear();
    else
      for (const name of [settings.FRESHET_CLICKHOUSE_DATABASE, settings.FRESHET_ANALYTICS_DATABASE])
        await command(ch, `DROP DATABASE IF EXISTS ${chName(name)} SYNC`);
    await ch.close();
    await dropTopics(settings, quietLog());
  }
}
