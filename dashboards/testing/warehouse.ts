import {randomUUID} from 'node:crypto';
import {type ClickHouseClient, createClient} from '@clickhouse/client';
import {migrateAndSettle} from '../../cdc/rollups/testing/hold-rollups.ts';
import {migrate} from '../../clickhouse/migrate.ts';

const technical = `_version UInt128, _is_deleted UInt8, _commit_ts DateTime64(6, 'UTC'),
  _ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)`;
const times = `created_at DateTime64(6, 'UTC'), updated_at DateTime64(6, 'UTC')`;

/** The demo shop's tables as the sink makes them. */
const TABLES: Readonly<Record<string, string>> = {
  customers: `id Int64, external_id Nullable(String), name String, email Nullable(String), country String,
    address Nullable(String), ${times}`,
  products: `id Int64, sku String, name Nullable(String), category Nullable(String), price Decimal(12, 3),
    attributes String, description Nullable(String), ${times}`,
  orders: `id Int64, order_no String, customer_id Nullable(Int64), status LowCardinality(String), country String,
    currency String, returns_order_id Nullable(Int64), ${times}`,
  order_items: `id Int64, order_id Int64, line_no Int32, product_id Int64, description Nullable(String),
    quantity Int32, unit_price Decimal(12, 3), ordered_at DateTime64(6, 'UTC')`,
};

/**
 * 400 orders: 60 in the last day, the others over 400 days; every tenth cancelled, every tenth a return, every
 * thirteenth by a guest. Customers live in three countries, one of which has a quote in its name.
 */
const ROWS: Readonly<Record<string, string>> = {
  customers: `SELECT number + 1 AS id, NULL AS external_id, concat('Customer O\\'Brien ', toString(id)) AS name,
    NULL AS email, ['United Kingdom', 'Côte d\\'Ivoire', 'DE'][1 + id % 3] AS country, NULL AS address,
    now64(6) - INTERVAL 500 DAY AS created_at, created_at AS updated_at FROM numbers(40)`,
  products: `SELECT number + 1 AS id, concat('SKU-', toString(id)) AS sku, concat('Product ', toString(id)) AS name,
    if(id % 4 = 0, NULL, ['Home', 'Garden', 'Gifts'][1 + id % 3]) AS category, toDecimal64(id * 1.255, 3) AS price,
    '{}' AS attributes, NULL AS description, now64(6) - INTERVAL 500 DAY AS created_at, created_at AS updated_at
    FROM numbers(12)`,
  orders: `SELECT number + 1 AS id, concat('N', toString(id)) AS order_no,
    if(id % 13 = 0, NULL, 1 + (id * 7) % 40) AS customer_id,
    transform(id % 10, [0, 1, 2], ['cancelled', 'return', 'refunded'], 'delivered') AS status, 'DE' AS country,
    if(number = 399, 'EUR', 'GBP') AS currency, if(status = 'return', id + 1, NULL) AS returns_order_id,
    now64(6) - toIntervalMinute(if(number < 60, number * 20, 1440 + (number - 60) * 1690)) AS created_at,
    created_at AS updated_at FROM numbers(400)`,
  order_items: `SELECT number + 1 AS id, intDiv(number, 2) + 1 AS order_id, number % 2 + 1 AS line_no,
    1 + (number * 5) % 12 AS product_id, NULL AS description,
    if(order_id % 10 = 1, -1, 1) * toInt32(1 + number % 5) AS quantity, toDecimal64(product_id * 1.255, 3) AS unit_price,
    now64(6) - toIntervalMinute(if(order_id <= 60, (order_id - 1) * 20, 1440 + (order_id - 61) * 1690)) AS ordered_at
    FROM numbers(800)`,
};

/** A late table, a parked one, one without a watermark, good ones with a batch every ten seconds; a slot at risk. */
const OPERATIONS: readonly string[] = [
  `INSERT INTO {cdc}._tables SELECT 'public', name, name, state, if(state = 'parked', 'refused', ''), 0, 1, '', now64(6)
   FROM VALUES('name String, state String', ('customers', 'streaming'), ('products', 'streaming'),
    ('orders', 'streaming'), ('order_items', 'streaming'), ('stock', 'parked'), ('prices', 'snapshot'))`,
  `INSERT INTO {cdc}._watermarks SELECT 'public', name, 1, now64(6) - toIntervalSecond(age),
    now64(6) - toIntervalSecond(age), now64(6)
   FROM VALUES('name String, age UInt32', ('customers', 1), ('products', 1), ('orders', 2), ('order_items', 400),
    ('stock', 4000))`,
  `INSERT INTO {cdc}._freshness SELECT 'public', if(number % 2 = 0, 'orders', 'customers'),
    now64(6) - toIntervalSecond(number * 10) AS visible, visible - toIntervalMillisecond(900 + number % 50),
    visible - toIntervalMillisecond(300), 100, 20000 FROM numbers(720)`,
  `INSERT INTO {cdc}._slot SELECT 'freshet', now64(6) - toIntervalSecond(number * 5), if(number < 60, 'critical', 'good'),
    900000000 - number * 1000000, 100000000 + number * 1000000, 200000, 500 FROM numbers(720)`,
];

export interface Warehouse {
  client: ClickHouseClient;
  /** Name of the database with the views. */
  analytics: string;
  /** A statement with {cdc} and {analytics} in place of the databases' names. */
  run(statement: string): Promise<unknown>;
  /** Drops both databases. */
  drop(): Promise<void>;
}

/**
 * A pair of databases on TEST_CLICKHOUSE_URL with the shop's tables and all views. Times are relative to
 * now. With `filled: false` nothing has arrived yet, as after an installation.
 */
export async function createWarehouse({filled}: {filled: boolean}): Promise<Warehouse> {
  const url = process.env.TEST_CLICKHOUSE_URL;
  if (!url) throw new Error('TEST_CLICKHOUSE_URL is not set');
  const client = createClient({url});
  const unique = randomUUID().slice(0, 8);
  const databases = {cdc: `test_dash_${unique}_cdc`, analytics: `test_dash_${unique}`};
  const run = (query: string) =>
    client.command({
      query: query.replaceAll('{cdc}', databases.cdc).replaceAll('{analytics}', databases.analytics),
    });
  const drop = async () => {
    for (const database of [databases.analytics, databases.cdc]) {
      await run(`DROP DATABASE IF EXISTS ${database}`);
    }
    await client.close();
  };
  for (const database of Object.values(databases)) await run(`CREATE DATABASE ${database}`);
  for (const [table, columns] of Object.entries(TABLES)) {
    await run(`CREATE TABLE {cdc}.public__${table} (${columns}, ${technical})
      ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id`);
    if (filled) {
      await run(`INSERT INTO {cdc}.public__${table}
        SELECT *, 1, 0, now64(6), now64(3) FROM (${ROWS[table]})`);
    }
    await run(`CREATE VIEW {analytics}.${table} SQL SECURITY DEFINER AS
      SELECT * EXCEPT (_version, _is_deleted, _commit_ts, _ingested_at)
      FROM {cdc}.public__${table} FINAL WHERE _is_deleted = 0`);
  }
  await migrateAndSettle({client, databases});
  const {waiting} = await migrate({client, databases});
  if (waiting.length > 0) throw new Error(`views that wait for something: ${JSON.stringify(waiting)}`);
  if (filled) for (const statement of OPERATIONS) await run(statement);
  return {client, analytics: databases.analytics, run, drop};
}
