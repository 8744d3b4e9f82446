import {z} from 'zod';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {asPipelineError} from '../failures.ts';
import {kafkaClient} from '../kafka/client.ts';
import {deadLetterTopic, topicName, watermarkTopic} from '../kafka/topics.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {chName, clickhouseClient, command, rows} from '../sink/clickhouse.ts';
import {Registry, type TableRow} from '../sink/registry.ts';
import {asSourceError, clientConfig, withClient} from '../source/postgres.ts';
import {removeTriggers, removeTriggersSql} from '../source/schema-messages.ts';
import {dropSlot} from '../source/slot.ts';
import {pgName, viewName} from '../source/table-schema.ts';

/**
 * Drops slot, publication and event triggers, so that PostgreSQL keeps nothing for this pipeline; with `keepData` no
 * more than that. Otherwise also topics, consumer group, target tables and views. 1 where `yes` is missing for that.
 */
export async function teardown(
  settings: Settings,
  log: Log,
  {keepData, yes}: {keepData: boolean; yes: boolean},
): Promise<number> {
  if (!keepData && !yes) {
    console.log(
      `This drops slot ${settings.FRESHET_SLOT}, publication ${settings.FRESHET_PUBLICATION}, the event triggers, the topics ${settings.FRESHET_TOPIC_PREFIX}.*,\n` +
        `database ${settings.FRESHET_CLICKHOUSE_DATABASE}, and the views made in ${settings.FRESHET_ANALYTICS_DATABASE}.\n` +
        'Run it with --yes, or with --keep-data to leave Kafka and ClickHouse as they are.',
    );
    return 1;
  }
  await withClient(clientConfig(settings), async client => {
    if (await dropSlot(client, settings.FRESHET_SLOT)) console.log(`dropped slot ${settings.FRESHET_SLOT}`);
    const publication = settings.FRESHET_PUBLICATION;
    const sql = `DROP PUBLICATION IF EXISTS ${pgName(publication)}`;
    await ifPermitted(`publication ${publication}`, `${sql};`, async () => {
      await client.query(sql).catch(error => Promise.reject(asSourceError(error)));
      return true;
    });
    await ifPermitted('the event triggers', removeTriggersSql(settings), () =>
      removeTriggers(client, settings),
    );
  });
  if (keepData) return 0;
  const client = clickhouseClient(settings);
  try {
    const tables = await new Registry(client, settings).tables().catch((): TableRow[] => []);
    if (settings.FRESHET_TRANSPORT === 'kafka') await dropTopics(settings, log, tables);
    const analytics = settings.FRESHET_ANALYTICS_DATABASE;
    const views = [
      ...tables.map(row => viewName(settings, {schema: row.schema_name, table: row.table_name})),
      ...readMigrationFiles().flatMap(file =>
        file.kind === 'view' ? [file.name, `${file.name}_v${file.version}`] : [],
      ),
    ];
    for (const view of views) await command(client, `DROP VIEW IF EXISTS ${chName(analytics, view)}`);
    await command(client, `DROP DATABASE IF EXISTS ${chName(settings.FRESHET_CLICKHOUSE_DATABASE)} SYNC`);
    // Somebody's own views may be there: then the database stays.
    const [left] = await rows(
      client,
      z.object({n: z.coerce.number()}),
      'SELECT count() AS n FROM system.tables WHERE database = {analytics: String}',
      {analytics},
    );
    if (left?.n === 0) await command(client, `DROP DATABASE IF EXISTS ${chName(analytics)} SYNC`);
    console.log(`dropped database ${settings.FRESHET_CLICKHOUSE_DATABASE} and ${views.length} views`);
  } finally {
    await client.close();
  }
  return 0;
}

/** What another role made stays, with the SQL for it: it keeps no WAL, so the rest is dropped all the same. */
async function ifPermitted(what: string, sql: string, drop: () => Promise<boolean>): Promise<void> {
  try {
    if (await drop()) console.log(`dropped ${what}`);
  } catch (thrown) {
    if (asPipelineError(thrown).code !== 'pg.permission') throw thrown;
    console.log(`! ${what}: another role made it. To remove it as a superuser:\n${sql}`);
  }
}

async function dropTopics(settings: Settings, log: Log, tables: readonly TableRow[]): Promise<void> {
  const prefix = settings.FRESHET_TOPIC_PREFIX;
  const admin = kafkaClient(settings, log).admin();
  try {
    await admin.connect();
    const existing = new Set(await admin.listTopics());
    const topics = [
      ...tables.map(row => topicName(prefix, row.schema_name, row.table_name)),
      watermarkTopic(prefix),
      deadLetterTopic(prefix),
    ].filter(topic => existing.has(topic));
    if (topics.length > 0) await admin.deleteTopics({topics});
    await admin.deleteGroups([settings.FRESHET_CONSUMER_GROUP]).catch(() => {}); // it may never have been made
    console.log(`dropped ${topics.length} topics`);
  } finally {
    await admin.disconnect().catch(() => {});
  }
}
