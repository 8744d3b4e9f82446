import {existsSync} from 'node:fs';
import {mkdir, rename, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {kafkaClient} from '../../cdc/kafka/client.ts';
import {chLiteral, chName, command} from '../../cdc/sink/clickhouse.ts';
import {quietLog} from '../../cdc/test-support/quiet-log.ts';
import {javaProperties} from '../stack/java-properties.ts';
import {anyFreePort} from '../stack/ports.ts';
import {runOnce} from '../stack/server.ts';
import {StackError} from '../stack/stack-error.ts';
import {arrivedIn, type Ground, until, type Working, walsender} from './ground.ts';
import {startPeer} from './peer-process.ts';
import {columnList, targetColumns} from './target-tables.ts';

const POM = fileURLToPath(new URL('peers/pom.xml', import.meta.url));
const HOME = fileURLToPath(new URL('../../.freshet/bench-peers/', import.meta.url));
const READY_MS = 900_000;
const PARTITIONS = 4;

/**
 * Fetches Debezium and Kafka Connect from Maven Central, once.
 * @throws StackError where Maven is missing, or fails
 */
export async function installDebezium(): Promise<void> {
  if (existsSync(HOME)) return;
  const unfinished = `${path.resolve(HOME)}-unfinished`;
  await rm(unfinished, {recursive: true, force: true});
  await mkdir(unfinished, {recursive: true});
  try {
    await runOnce({file: 'mvn', args: ['-q', '-B', '-f', POM, `-Dout=${unfinished}`, 'package']});
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new StackError(
      `Debezium cannot be fetched: ${why}\nIt needs Maven (mvn) and Maven Central; --systems freshet goes without it`,
    );
  }
  await rename(unfinished, HOME);
}

/** How Connect and the connector are set, beside what names servers, tables and files. The report prints it. */
export const DEBEZIUM_SETTINGS = {
  worker: {
    'key.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'key.converter.schemas.enable': false,
    'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'value.converter.schemas.enable': false,
    'producer.compression.type': 'zstd',
    'producer.linger.ms': 50,
    'producer.batch.size': 1 << 20,
    'producer.buffer.memory': 64 << 20,
    'producer.max.request.size': 32 << 20,
  },
  connector: {
    'plugin.name': 'pgoutput',
    'snapshot.mode': 'initial',
    'max.batch.size': 8192,
    'max.queue.size': 32_768,
    // The default, 500, is what a change that comes alone would wait.
    'poll.interval.ms': 50,
    'decimal.handling.mode': 'string',
    'tombstones.on.delete': false,
  },
  kafkaEngine: {
    kafka_format: 'JSONEachRow',
    kafka_num_consumers: 1,
    // As FRESHET_FLUSH_MS; the default is 7,500.
    kafka_flush_interval_ms: 300,
    kafka_poll_timeout_ms: 100,
    kafka_max_block_size: 65_536,
    date_time_input_format: 'best_effort',
  },
} as const;

/** Debezium on Kafka Connect → Kafka → a `Kafka` table and a materialized view → ReplacingMergeTree. */
export async function startDebezium(ground: Ground): Promise<Working> {
  const {name, folder, world, workload} = ground;
  const {settings} = world;
  await installDebezium();
  const database = `${name}_debezium`;
  await makeTopics(ground);
  await makeTargets(ground, database);
  const source = new URL(settings.FRESHET_PG_URL);
  const [worker, connector] = ['worker', 'connector'].map(file => path.join(folder, `${file}.properties`));
  await writeFile(
    worker!,
    javaProperties({
      'bootstrap.servers': settings.FRESHET_KAFKA_BROKERS.join(','),
      'offset.storage.file.filename': path.join(folder, 'offsets'),
      'plugin.path': path.join(HOME, 'plugins'),
      listeners: `http://127.0.0.1:${await anyFreePort()}`,
      ...DEBEZIUM_SETTINGS.worker,
    }),
  );
  await writeFile(
    connector!,
    javaProperties({
      name,
      'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
      'database.hostname': source.hostname,
      'database.port': source.port,
      'database.user': decodeURIComponent(source.username),
      'database.password': decodeURIComponent(source.password),
      'database.dbname': name,
      'topic.prefix': settings.FRESHET_TOPIC_PREFIX,
      'slot.name': name,
      'publication.name': name,
      'publication.autocreate.mode': 'filtered',
      'table.include.list': workload.tables.map(table => `public.${table}`).join(','),
      ...DEBEZIUM_SETTINGS.connector,
    }),
  );
  const log = path.join(folder, 'connect.log');
  const connect = startPeer(
    'Kafka Connect',
    'java',
    [
      '-Xms256m',
      '-Xmx1g',
      '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
      '-cp',
      path.join(HOME, 'lib', '*'),
      'org.apache.kafka.connect.cli.ConnectStandalone',
      worker!,
      connector!,
    ],
    {log},
  );
  const current = (table: string): string => `(SELECT * FROM ${chName(database, table)} FINAL)`;
  return {
    processes: {debezium: [connect.pid]},
    failed: connect.failed,
    ready: () => until(async () => (await walsender(ground)) !== undefined, READY_MS, 'Debezium streams'),
    reader: () => walsender(ground),
    arrived: arrivedIn(ground, current),
    target: {current, rows: table => chName(database, table), databases: [database]},
    async stop() {
      await connect.stop();
      await command(world.client, `DROP DATABASE IF EXISTS ${chName(database)} SYNC`);
    },
  };
}

async function makeTopics({world: {settings}, workload}: Ground): Promise<void> {
  const admin = kafkaClient(settings, quietLog()).admin();
  await admin.connect();
  await admin.createTopics({
    topics: workload.tables.map(table => ({
      topic: `${settings.FRESHET_TOPIC_PREFIX}.public.${table}`,
      numPartitions: PARTITIONS,
      replicationFactor: 1,
    })),
  });
  await admin.disconnect();
}

async function makeTargets({world, workload}: Ground, database: string): Promise<void> {
  const {client, settings} = world;
  await command(client, `CREATE DATABASE ${chName(database)}`);
  for (const table of workload.tables) {
    const columns = await targetColumns(world, table);
    const [target, queue] = [chName(database, table), chName(database, `${table}_queue`)];
    const engine = {
      kafka_broker_list: settings.FRESHET_KAFKA_BROKERS.join(','),
      kafka_topic_list: `${settings.FRESHET_TOPIC_PREFIX}.public.${table}`,
      kafka_group_name: `${database}_${table}`,
      ...DEBEZIUM_SETTINGS.kafkaEngine,
    };
    const set = Object.entries(engine).map(
      ([name, value]) => `${name} = ${typeof value === 'number' ? value : chLiteral(value)}`,
    );
    await command(
      client,
      `CREATE TABLE ${target} (${columnList(columns)}, _version UInt64, _is_deleted UInt8)
       ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id`,
    );
    await command(
      client,
      `CREATE TABLE ${queue} (op String, after Tuple(${columnList(columns)}), source Tuple(lsn UInt64))
       ENGINE = Kafka SETTINGS ${set.join(', ')}`,
    );
    // No workload deletes; a view for deletions too would have to look at `before`.
    await command(
      client,
      `CREATE MATERIALIZED VIEW ${chName(database, `${table}_view`)} TO ${target} AS
       SELECT ${columns.map(({name}) => `after.${chName(name)} AS ${chName(name)}`).join(', ')},
         source.lsn AS _version, op = 'd' AS _is_deleted FROM ${queue}`,
    );
  }
}
