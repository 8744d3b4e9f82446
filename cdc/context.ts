import {migrate} from '../clickhouse/migrate.ts';
import type {Names} from '../clickhouse/migration-files.ts';
import {Budget} from './budget.ts';
import type {Log} from './observe/log.ts';
import {retrying} from './retry.ts';
import type {Settings} from './settings/settings.ts';
import {type ClickHouseClient, clickhouseClient} from './sink/clickhouse.ts';
import {Registry} from './sink/registry.ts';
import type {SnapshotProgress} from './source/snapshot.ts';

export interface PipelineOptions {
  readonly settings: Settings;
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: Readonly<SnapshotProgress>) => void;
}

/** What both stages use. */
export interface Context extends PipelineOptions {
  readonly client: ClickHouseClient;
  readonly registry: Registry;
  /** What the stages of this process may hold together. */
  readonly budget: Budget;
  /** Do large transactions come while they are still open? Where that failed, not before the next start. */
  readonly streaming: {on: boolean};
}

/** Connects to ClickHouse, brings its schema up to date, and runs the work. */
export async function withContext(
  options: PipelineOptions,
  work: (context: Context) => Promise<void>,
): Promise<void> {
  const client = clickhouseClient(options.settings);
  const registry = new Registry(client, options.settings);
  const {FRESHET_BUFFER_BYTES, FRESHET_BATCH_BYTES} = options.settings;
  const budget = new Budget(FRESHET_BUFFER_BYTES, FRESHET_BATCH_BYTES);
  const {log, signal} = options;
  try {
    await retrying('migrations', () => migrateAll(client, options.settings, log), {log, signal});
    const streaming = {on: options.settings.FRESHET_PG_STREAMING === 'on'};
    await work({...options, client, registry, budget, streaming});
  } finally {
    await client.close();
  }
}

/** What stands behind the placeholders of the SQL of `clickhouse/`. */
export const databasesOf = (settings: Settings): Required<Omit<Names, 'cluster'>> => ({
  cdc: settings.FRESHET_CLICKHOUSE_DATABASE,
  analytics: settings.FRESHET_ANALYTICS_DATABASE,
  timeZone: settings.FRESHET_TIME_ZONE,
  currency: settings.FRESHET_CURRENCY,
});

/** Applies the SQL of `clickhouse/` whose requirements are there. */
export async function migrateAll(client: ClickHouseClient, settings: Settings, log: Log) {
  return migrate({client, databases: databasesOf(settings), log: line => log.info({}, line)});
}
