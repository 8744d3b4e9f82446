import type {Admin} from 'kafkajs';
import {PipelineError} from '../failures.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {asKafkaError} from './client.ts';

/** Kafka allows these 249 bytes at most; other bytes of a name are written as `_xHH`, so that no two names merge. */
const LONGEST = 249;

/** `<prefix>.<schema>.<table>`. Throws `pg.preflight` where the name is too long for a topic. */
export function topicName(prefix: string, schema: string, table: string): string {
  const topic = `${prefix}.${safe(schema)}.${safe(table)}`;
  if (topic.length > LONGEST) {
    throw new PipelineError(
      'pg.preflight',
      `the topic of ${schema}.${table} would have ${topic.length} characters`,
    );
  }
  return topic;
}

const safe = (name: string): string =>
  [...Buffer.from(name)]
    .map((byte, i, all) => {
      const letter = String.fromCharCode(byte);
      const mark = letter === '_' && all[i + 1] === 0x78;
      return /[A-Za-z0-9_-]/.test(letter) && !mark ? letter : `_x${byte.toString(16).padStart(2, '0')}`;
    })
    .join('');

export const watermarkTopic = (prefix: string): string => `${prefix}.watermarks`;

/**
 * Creates the topics that are missing, and checks that an acknowledged message cannot be lost by one broker's loss
 * where the topic has replicas. Gives the number of partitions of each.
 */
export async function prepareTopics(
  admin: Admin,
  settings: Settings,
  wanted: readonly {topic: string; partitions: number}[],
  log: Log,
): Promise<Map<string, number>> {
  try {
    const existing = new Set(await admin.listTopics());
    const missing = wanted.filter(({topic}) => !existing.has(topic));
    if (missing.length > 0) {
      const replicas = settings.FRESHET_TOPIC_REPLICATION;
      await admin.createTopics({
        waitForLeaders: true,
        topics: missing.map(({topic, partitions}) => ({
          topic,
          numPartitions: partitions,
          replicationFactor: replicas,
          configEntries: [
            {name: 'cleanup.policy', value: 'delete'},
            {name: 'retention.ms', value: String(settings.FRESHET_TOPIC_RETENTION_HOURS * 3_600_000)},
            {name: 'max.message.bytes', value: String(settings.FRESHET_MESSAGE_MAX_BYTES)},
            {name: 'min.insync.replicas', value: String(Math.min(2, replicas))},
          ],
        })),
      });
      log.info({topics: missing.length}, 'created topics');
    }
    const {topics} = await admin.fetchTopicMetadata({topics: wanted.map(({topic}) => topic)});
    for (const {name, partitions} of topics) {
      if ((partitions[0]?.replicas.length ?? 1) > 1 && (await minIsr(admin, name)) < 2) {
        throw new PipelineError('kafka.min_isr', `${name} has replicas, but min.insync.replicas is 1`);
      }
    }
    return new Map(topics.map(({name, partitions}) => [name, partitions.length]));
  } catch (error) {
    throw asKafkaError(error);
  }
}

async function minIsr(admin: Admin, topic: string): Promise<number> {
  const TOPIC = 2; // ConfigResourceTypes.TOPIC
  const {resources} = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{type: TOPIC, name: topic, configNames: ['min.insync.replicas']}],
  });
  return Number(resources[0]?.configEntries[0]?.configValue ?? 1);
}
