import {createHash} from 'node:crypto';
import {setTimeout as sleep} from 'node:timers/promises';
import type {Admin} from 'kafkajs';
import {PipelineError} from '../failures.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {asKafkaError} from './client.ts';
import type {Ends} from './message.ts';

/** Kafka allows these 249 bytes at most; other bytes of a name are written as `_xHH`, so that no two names merge. */
const LONGEST = 249;
const HASH_DIGITS = 32;

/** `<prefix>.<schema>.<table>`. A name too long for that ends in `_xz` and a hash, which no other name has. */
export function topicName(prefix: string, schema: string, table: string): string {
  const topic = `${prefix}.${safe(schema)}.${safe(table)}`;
  if (topic.length <= LONGEST) return topic;
  const hash = createHash('sha256').update(topic).digest('hex').slice(0, HASH_DIGITS);
  return `${topic.slice(0, LONGEST - HASH_DIGITS - 3)}_xz${hash}`;
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
export const deadLetterTopic = (prefix: string): string => `${prefix}.dead-letter`;

/**
 * Kafka deletes whole segments, each when its newest message is as old as the retention: so an old message stays for a
 * fraction of the retention longer, and not for the 7 days for which a broker fills a segment by default.
 */
const SEGMENTS = 7;
/** A dead letter has to wait for a person: it is kept so many times longer than other messages. */
const PATIENCE = 10;
/** A dead letter is its message with more headers. */
const MORE_HEADERS = 64 << 10;

/** By default a table's topic has so many partitions, as long as those of all tables are no more than `MOST`. */
const PARTITIONS = 4;
/** Brokers, producers and sinks do something for each partition in each request, however little is in it. */
const MOST = 200;

/** Of the topic of one of so many tables, when it is created. */
export const partitionsFor = (settings: Pick<Settings, 'FRESHET_TOPIC_PARTITIONS'>, tables: number): number =>
  settings.FRESHET_TOPIC_PARTITIONS ?? Math.min(PARTITIONS, Math.max(1, Math.floor(MOST / tables)));

export interface TopicLimits {
  readonly partitions: number;
  /** What the messages of one partition may have together in one request (`max.message.bytes`). */
  readonly maxBytes: number;
}

/**
 * Creates the topics that are missing, and checks that an acknowledged message cannot be lost by one broker's loss
 * where the topic has replicas. Gives what each of them takes.
 */
export async function prepareTopics(
  admin: Admin,
  settings: Settings,
  wanted: readonly {topic: string; partitions: number}[],
  log: Log,
): Promise<Map<string, TopicLimits>> {
  try {
    const existing = new Set(await admin.listTopics());
    const missing = wanted.filter(({topic}) => !existing.has(topic));
    if (missing.length > 0) {
      const replicas = settings.FRESHET_TOPIC_REPLICATION;
      const dead = deadLetterTopic(settings.FRESHET_TOPIC_PREFIX);
      const retentionMs = (topic: string): number =>
        settings.FRESHET_TOPIC_RETENTION_HOURS * 3_600_000 * (topic === dead ? PATIENCE : 1);
      await admin.createTopics({
        waitForLeaders: true,
        topics: missing.map(({topic, partitions}) => ({
          topic,
          numPartitions: partitions,
          replicationFactor: replicas,
          configEntries: [
            {name: 'cleanup.policy', value: 'delete'},
            {name: 'retention.ms', value: String(retentionMs(topic))},
            {name: 'segment.ms', value: String(Math.ceil(retentionMs(topic) / SEGMENTS))},
            {
              name: MAX_BYTES,
              value: String(settings.FRESHET_MESSAGE_MAX_BYTES + (topic === dead ? MORE_HEADERS : 0)),
            },
            {name: MIN_ISR, value: String(Math.min(2, replicas))},
          ],
        })),
      });
      log.info({topics: missing.length}, 'created topics');
    }
    const {topics} = await admin.fetchTopicMetadata({topics: wanted.map(({topic}) => topic)});
    const names = topics.map(({name}) => name);
    const configs = await onceKnown(() => readConfigs(admin, names));
    const fewer = topics.filter(
      ({name, partitions}) => partitions.length < (wanted.find(({topic}) => topic === name)?.partitions ?? 0),
    );
    if (fewer.length > 0 && settings.FRESHET_TOPIC_PARTITIONS !== undefined) {
      log.info(
        {topics: fewer.map(({name, partitions}) => `${name}: ${partitions.length}`)},
        `topics have fewer partitions than FRESHET_TOPIC_PARTITIONS (${settings.FRESHET_TOPIC_PARTITIONS}), and are used as they are; partitions that are added are taken up while this runs`,
      );
    }
    const limits = new Map<string, TopicLimits>();
    for (const {name, partitions} of topics) {
      const config = configs.get(name);
      if ((partitions[0]?.replicas.length ?? 1) > 1 && Number(config?.get(MIN_ISR) ?? 1) < 2) {
        throw new PipelineError('kafka.min_isr', `${name} has replicas, but ${MIN_ISR} is 1`);
      }
      const maxBytes = Number(config?.get(MAX_BYTES) ?? settings.FRESHET_MESSAGE_MAX_BYTES);
      limits.set(name, {partitions: partitions.length, maxBytes});
    }
    return limits;
  } catch (error) {
    throw asKafkaError(error);
  }
}

/** Offset behind the last message of each partition. */
export const endsOf = (admin: Admin, topic: string): Promise<bigint[]> =>
  onceKnown(async () => {
    const ends: bigint[] = [];
    for (const {partition, high} of await admin.fetchTopicOffsets(topic)) ends[partition] = BigInt(high);
    return ends;
  });

/** @param topics table → topic */
export async function allEnds(admin: Admin, topics: Iterable<readonly [string, string]>): Promise<Ends> {
  const ends: Record<string, Record<number, string>> = {};
  for (const [table, topic] of topics)
    ends[table] = Object.fromEntries((await endsOf(admin, topic)).map((end, i) => [i, end.toString()]));
  return ends;
}

/** Brokers do not know a topic that was made a moment ago yet, and kafkajs does not ask again. */
async function onceKnown<T>(ask: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (!(error as {retriable?: boolean}).retriable || attempt === 20) throw error;
      await sleep(100);
    }
  }
}

const MIN_ISR = 'min.insync.replicas';
const MAX_BYTES = 'max.message.bytes';

/** topic → setting → value; a topic that somebody else made has limits of its own. */
async function readConfigs(
  admin: Admin,
  topics: readonly string[],
): Promise<Map<string, ReadonlyMap<string, string>>> {
  const TOPIC = 2; // ConfigResourceTypes.TOPIC
  const {resources} = await admin.describeConfigs({
    includeSynonyms: false,
    resources: topics.map(name => ({type: TOPIC, name, configNames: [MIN_ISR, MAX_BYTES]})),
  });
  return new Map(
    resources.map(({resourceName, configEntries}) => [
      resourceName,
      new Map(configEntries.map(({configName, configValue}) => [configName, configValue])),
    ]),
  );
}
