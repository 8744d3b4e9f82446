import {randomBytes} from 'node:crypto';
import {type ClickHouseClient, createClient} from '@clickhouse/client';
import type {ExecutionContext} from 'ava';
import {RIGHT_AGGREGATES} from '../../cdc/sink/clickhouse.ts';
import {skip} from '../../scripts/stack/skip.ts';
import {statementsOf} from '../migration-files.ts';
import {AS_TEXT} from './answers.ts';

export interface TestWarehouse {
  client: ClickHouseClient;
  /** Names of the test's own; the databases are dropped after it. */
  databases: {cdc: string; analytics: string; timeZone?: string; currency?: string};
  /** Runs statements, each ended by a `;` at the end of a line, with {cdc} and {analytics} put in. */
  run(sql: string): Promise<void>;
  rows<R>(sql: string): Promise<R[]>;
}

/** Null (with a message) where no server was given. Databases are made by `migrate`, or by `createShopTables`. */
export function testWarehouse(t: ExecutionContext): TestWarehouse | null {
  const url = process.env.TEST_CLICKHOUSE_URL;
  if (!url) {
    skip(t, 'TEST_CLICKHOUSE_URL names no ClickHouse');
    return null;
  }
  const own = randomBytes(6).toString('hex');
  const databases: TestWarehouse['databases'] = {cdc: `cdc_${own}`, analytics: `analytics_${own}`};
  const client = createClient({
    url,
    log: {level: 127},
    clickhouse_settings: {
      async_insert: 0,
      ...RIGHT_AGGREGATES,
      ...AS_TEXT,
    },
  });
  const fill = (sql: string) => statementsOf(sql, databases);
  const run = async (sql: string) => {
    for (const query of fill(sql)) await client.command({query});
  };
  t.teardown(async () => {
    await run('DROP DATABASE IF EXISTS {analytics} SYNC;\nDROP DATABASE IF EXISTS {cdc} SYNC;');
    await client.close();
  });
  const rows = async <R>(sql: string): Promise<R[]> => {
    const result = await client.query({query: fill(sql)[0]!, format: 'JSONEachRow'});
    return await result.json<R>();
  };
  return {client, databases, run, rows};
}

const times = `created_at DateTime64(6, 'UTC'), updated_at DateTime64(6, 'UTC')`;

/** The demo shop's tables with the columns that the sink gives them. */
const SHOP: Readonly<Record<string, string>> = {
  customers: `id Int64, external_id Nullable(String), name String, email Nullable(String), country String,
    address Nullable(String), ${times}`,
  products: `id Int64, sku String, name Nullable(String), category Nullable(String), price Decimal(12, 3),
    attributes String, description Nullable(String), ${times}`,
  orders: `id Int64, order_no String, customer_id Nullable(Int64), status LowCardinality(String), country String,
    currency Nullable(String), returns_order_id Nullable(Int64), ${times}`,
  order_items: `id Int64, order_id Int64, line_no Int32, product_id Int64, description Nullable(String),
    quantity Int32, unit_price Decimal(12, 3), ordered_at DateTime64(6, 'UTC')`,
};

/** What the sink makes: target tables and views of their current rows. */
export async function createShopTables({run}: Pick<TestWarehouse, 'run'>): Promise<void> {
  await run('CREATE DATABASE IF NOT EXISTS {cdc};\nCREATE DATABASE IF NOT EXISTS {analytics};');
  for (const [name, columns] of Object.entries(SHOP)) {
    await run(`CREATE TABLE {cdc}.public__${name} (${columns}, _version UInt128, _is_deleted UInt8,
        _commit_ts DateTime64(6, 'UTC'), _ingested_at DateTime64(3, 'UTC') DEFAULT now64(3))
        ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id SETTINGS index_granularity = 1024;
      CREATE VIEW {analytics}.${name} SQL SECURITY DEFINER AS
        SELECT * EXCEPT (_version, _is_deleted, _commit_ts, _ingested_at)
        FROM {cdc}.public__${name} FINAL WHERE _is_deleted = 0`);
  }
}
