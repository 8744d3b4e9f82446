import {randomBytes} from 'node:crypto';
import pg from 'pg';
import {z} from 'zod';
import {migrateAll} from '../context.ts';
import {kafkaClient} from '../kafka/client.ts';
import type {Log} from '../observe/log.ts';
import {loadSettings, type Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, clickhouseClient, command, rows} from '../sink/clickhouse.ts';
import {dropDatabase} from '../test-support/drop-database.ts';
import {quietLog} from '../test-support/quiet-log.ts';

/** The servers that histories run on. */
export interface Servers {
  readonly pgUrl: string;
  readonly clickhouseUrl: string;
  /** Empty where there is no Kafka. */
  readonly brokers: string;
}

const Name = z.object({database: z.string(), name: z.string()});

/** Two databases of ClickHouse that one pipeline after the other uses: the migrations take longer than a history. */
export class Target {
  readonly client: ClickHouseClient;
  readonly names: {readonly cdc: string; readonly analytics: string};
  readonly #own = new Set<string>();

  private constructor(client: ClickHouseClient, names: Target['names']) {
    this.client = client;
    this.names = names;
  }

  static async create(url: string, id: string): Promise<Target> {
    const names = {cdc: `${id}_cdc`, analytics: `${id}_an`};
    const settings = loadSettings({
      FRESHET_PG_URL: 'postgres://unused',
      FRESHET_TRANSPORT: 'direct',
      FRESHET_CLICKHOUSE_URL: url,
      FRESHET_CLICKHOUSE_DATABASE: names.cdc,
      FRESHET_ANALYTICS_DATABASE: names.analytics,
    });
    const target = new Target(clickhouseClient(settings), names);
    await migrateAll(target.client, settings, quietLog());
    for (const {database, name} of await target.#tables()) target.#own.add(chName(database, name));
    return target;
  }

  /** What a pipeline added to it. */
  async added(): Promise<z.infer<typeof Name>[]> {
    return (await this.#tables()).filter(({database, name}) => !this.#own.has(chName(database, name)));
  }

  /** Empties it for the next pipeline. */
  async clear(): Promise<void> {
    await Promise.all(
      (await this.#tables()).map(({database, name}) => {
        const table = chName(database, name);
        if (!this.#own.has(table)) return command(this.client, `DROP TABLE ${table} SYNC`);
        return database === this.names.cdc && name !== '_migrations'
          ? command(this.client, `TRUNCATE TABLE IF EXISTS ${table} SYNC`)
          : undefined;
      }),
    );
  }

  async drop(): Promise<void> {
    for (const name of Object.values(this.names))
      await command(this.client, `DROP DATABASE IF EXISTS ${name} SYNC`);
    await this.client.close();
  }

  #tables(): Promise<z.infer<typeof Name>[]> {
    return rows(
      this.client,
      Name,
      'SELECT database, name FROM system.tables WHERE database IN {names: Array(String)} ORDER BY name',
      {names: Object.values(this.names)},
    );
  }
}

/** A PostgreSQL database of one history, and what a pipeline that reads it is set to. */
export interface World {
  readonly url: string;
  readonly pg: pg.Client;
  readonly environment: Readonly<Record<string, string>>;
  readonly settings: Settings;
}

/** Where histories run, one at a time: the databases of ClickHouse stay, everything else is made for each. */
export class Place {
  readonly servers: Servers;
  readonly streamed: Target;
  /** Where everything is read anew for comparison. */
  readonly fresh: Target;

  private constructor(servers: Servers, streamed: Target, fresh: Target) {
    this.servers = servers;
    this.streamed = streamed;
    this.fresh = fresh;
  }

  static async create(servers: Servers): Promise<Place> {
    const id = `h${randomBytes(4).toString('hex')}`;
    const streamed = await Target.create(servers.clickhouseUrl, id);
    return new Place(servers, streamed, await Target.create(servers.clickhouseUrl, `${id}f`));
  }

  /** Runs `work` in a new world; what that made is dropped afterwards, however it ends. */
  async withWorld<T>(
    overrides: Readonly<Record<string, string>>,
    work: (world: World) => Promise<T>,
  ): Promise<T> {
    const {pgUrl, clickhouseUrl, brokers} = this.servers;
    const id = `h${randomBytes(5).toString('hex')}`;
    const admin = new pg.Client(pgUrl);
    await admin.connect();
    const url = new URL(pgUrl);
    url.pathname = `/${id}`;
    const client = new pg.Client(url.href);
    client.on('error', () => {});
    const environment = {
      FRESHET_PG_URL: url.href,
      FRESHET_SLOT: id,
      FRESHET_PUBLICATION: id,
      FRESHET_TOPIC_PREFIX: id,
      FRESHET_KAFKA_BROKERS: brokers,
      FRESHET_CLICKHOUSE_URL: clickhouseUrl,
      FRESHET_CLICKHOUSE_DATABASE: this.streamed.names.cdc,
      FRESHET_ANALYTICS_DATABASE: this.streamed.names.analytics,
      FRESHET_TABLES_INCLUDE: '*.*',
      ...overrides,
    };
    const settings = loadSettings(environment);
    try {
      await admin.query(`CREATE DATABASE ${id}`);
      await client.connect();
      return await work({url: url.href, pg: client, environment, settings});
    } finally {
      await client.end().catch(() => {});
      await dropDatabase(admin, id);
      await admin.end();
      await Promise.all([this.streamed.clear(), this.fresh.clear()]);
      if (settings.FRESHET_TRANSPORT === 'kafka') await dropTopics(settings, quietLog());
    }
  }

  async drop(): Promise<void> {
    await Promise.all([this.streamed.drop(), this.fresh.drop()]);
  }
}

/** Drops the topics and the group of a pipeline. */
export async function dropTopics(settings: Settings, log: Log): Promise<void> {
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  try {
    const topics = (await admin.listTopics()).filter(topic =>
      topic.startsWith(`${settings.FRESHET_TOPIC_PREFIX}.`),
    );
    if (topics.length > 0) await admin.deleteTopics({topics});
    await admin.deleteGroups([settings.FRESHET_CONSUMER_GROUP]).catch(() => {}); // one that never joined
  } finally {
    await admin.disconnect();
  }
}
