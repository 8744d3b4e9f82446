import {asPipelineError} from '../failures.ts';
import {asKafkaError, kafkaClient} from '../kafka/client.ts';
import type {Log} from '../observe/log.ts';
import {oneLine, oneLineSql} from '../observe/one-line.ts';
import type {Settings} from '../settings/settings.ts';
import {asTargetError, clickhouseClient} from '../sink/clickhouse.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {preflight as checkSource, problemLines} from '../source/preflight.ts';

/** Looks at the three servers and changes nothing. Prints what it found; 1 where something is in the way. */
export async function preflight(settings: Settings, log: Log): Promise<number> {
  const checks: readonly (readonly [string, () => Promise<string[]>])[] = [
    ['PostgreSQL', () => source(settings)],
    ['ClickHouse', () => clickhouse(settings)],
    ...(settings.FRESHET_TRANSPORT === 'kafka' ? [['Kafka', () => kafka(settings, log)] as const] : []),
  ];
  let failed = false;
  for (const [name, check] of checks) {
    const lines = await check().catch(thrown => {
      const error = asPipelineError(thrown);
      return [`✗ ${error.message}`, `    ${error.hint}`];
    });
    failed ||= lines.some(line => line.startsWith('✗'));
    console.log(`${name}\n${lines.map(line => `  ${oneLine(line)}`).join('\n')}`);
  }
  return failed ? 1 : 0;
}

async function source(settings: Settings): Promise<string[]> {
  const found = await withClient(clientConfig(settings), client => checkSource(client, settings));
  return [
    `✓ version ${(found.serverVersion / 10_000).toFixed(0)}, database ${found.database}`,
    ...found.captured.map(({schema}) => `✓ ${schema.name}, key (${schema.definition.key.join(', ')})`),
    ...(found.createPublication ? [`· will run: ${oneLineSql(found.createPublication)}`] : []),
    ...problemLines(found.problems),
  ];
}

async function clickhouse(settings: Settings): Promise<string[]> {
  const client = clickhouseClient(settings);
  try {
    const result = await client.query({
      query: 'SELECT version() AS version, currentUser() AS user',
      format: 'JSONEachRow',
    });
    const [row] = await result.json<{version: string; user: string}>();
    return [`✓ version ${row?.version}, user ${row?.user}`];
  } catch (error) {
    throw asTargetError(error);
  } finally {
    await client.close();
  }
}

async function kafka(settings: Settings, log: Log): Promise<string[]> {
  const admin = kafkaClient(settings, log).admin();
  try {
    await admin.connect();
    const {brokers} = await admin.describeCluster();
    const few = brokers.length < settings.FRESHET_TOPIC_REPLICATION;
    return [
      `✓ ${brokers.length} broker${brokers.length === 1 ? '' : 's'}`,
      ...(few ? [`✗ FRESHET_TOPIC_REPLICATION is ${settings.FRESHET_TOPIC_REPLICATION}`] : []),
    ];
  } catch (error) {
    throw asKafkaError(error);
  } finally {
    await admin.disconnect().catch(() => {});
  }
}
