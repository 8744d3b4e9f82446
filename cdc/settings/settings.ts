import {readFileSync} from 'node:fs';
import {parseEnv} from 'node:util';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';

const list = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform(text =>
      text
        .split(',')
        .map(part => part.trim())
        .filter(part => part !== ''),
    );
const between = (min: number, max: number) => z.coerce.number().int().min(min).max(max);
const whole = (min: number, max: number, fallback: number) => between(min, max).default(fallback);
const flag = z
  .enum(['true', 'false'])
  .default('false')
  .transform(text => text === 'true');
const name = (fallback: string) =>
  z
    .string()
    .regex(/^[a-z_][a-z0-9_]{0,62}$/, 'lower-case letters, digits and _, 63 at most')
    .default(fallback);
const file = (what: string) => z.string().optional().describe(`file: ${what}`);
const MiB = 1 << 20;

/**
 * Every setting: parsing, default and help text come from this one table. `secret` ones are never printed, and
 * may come from a file whose name is in NAME_FILE.
 */
export const ROWS = {
  FRESHET_PG_URL: z
    .url({protocol: /^postgres(ql)?$/, error: 'postgres://user:password@host:5432/database'})
    .refine(url => !/[?&]ssl/.test(url), 'no sslmode and the like: FRESHET_PG_TLS says it')
    .describe('source database; the role needs REPLICATION and SELECT (secret)'),
  FRESHET_PG_PASSWORD: z.string().optional().describe('password of that role, where not in the URL (secret)'),
  FRESHET_PG_TLS: z
    .enum(['off', 'require', 'verify'])
    .default('off')
    .describe('TLS to PostgreSQL: off, require (encrypt only), verify'),
  FRESHET_PG_TLS_CA: file('CA certificate that PostgreSQL must show'),
  FRESHET_PG_TLS_CERT: file('client certificate for PostgreSQL'),
  FRESHET_PG_TLS_KEY: file('key of that certificate'),
  FRESHET_SLOT: name('freshet').describe('replication slot; one for each pipeline'),
  FRESHET_SLOT_FAILOVER: flag.describe(
    'the slot is kept on standbys too (PostgreSQL 17 and later), so that a failover needs no resync',
  ),
  FRESHET_PUBLICATION: name('freshet').describe('publication; created where missing and permitted'),
  FRESHET_TABLES_INCLUDE: list('public.*').describe(
    'tables to capture: patterns of schema.table, comma-separated; snapshots read them in this order',
  ),
  FRESHET_TABLES_EXCLUDE: list('').describe('tables to leave out, the same way'),
  FRESHET_EVENT_TRIGGERS: z
    .enum(['auto', 'off'])
    .default('auto')
    .describe(
      'auto: event triggers at the source announce schema changes, where the role may create them; off',
    ),
  FRESHET_PG_STREAMING: z
    .enum(['on', 'off'])
    .default('off')
    .describe(
      'on: large transactions are sent while they are still open, and wait in files for their commit',
    ),
  FRESHET_SPILL_DIR: z
    .string()
    .default('')
    .describe('folder of those files; the one for temporary files by default'),
  FRESHET_SPILL_BYTES: whole(0, 1024 * 1024 * MiB, 0).describe(
    'bytes of such files at most: beyond them large transactions come after their commit; 0 is what the disk has',
  ),

  FRESHET_TRANSPORT: z
    .enum(['kafka', 'direct'])
    .default('kafka')
    .describe('kafka, or direct (capture and sink in one process, no Kafka)'),
  FRESHET_KAFKA_BROKERS: list('').describe('brokers, host:port, comma-separated'),
  FRESHET_KAFKA_TLS: flag.describe('TLS to Kafka'),
  FRESHET_KAFKA_TLS_CA: file('CA certificate that the brokers must show'),
  FRESHET_KAFKA_TLS_CERT: file('client certificate for Kafka'),
  FRESHET_KAFKA_TLS_KEY: file('key of that certificate'),
  FRESHET_KAFKA_SASL_MECHANISM: z
    .enum(['none', 'plain', 'scram-sha-256', 'scram-sha-512'])
    .default('none')
    .describe('SASL mechanism'),
  FRESHET_KAFKA_SASL_USERNAME: z.string().optional().describe('SASL user'),
  FRESHET_KAFKA_SASL_PASSWORD: z.string().optional().describe('SASL password (secret)'),
  FRESHET_KAFKA_PRODUCER: z
    .enum(['lean', 'kafkajs'])
    .default('lean')
    .describe(
      'lean: record batches are encoded from bytes, at a fraction of the cost; kafkajs: by that library',
    ),
  FRESHET_KAFKA_COMPRESSION: z
    .enum(['zstd', 'none'])
    .default('zstd')
    .describe(
      'of what is written to the topics: zstd takes a tenth of the space, and less time than it saves',
    ),
  FRESHET_TOPIC_PREFIX: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,100}$/)
    .default('freshet')
    .describe('topics are PREFIX.schema.table'),
  FRESHET_TOPIC_PARTITIONS: between(1, 1000)
    .optional()
    .describe(
      'partitions of a topic that is created; by default 4, and fewer where there are more than 50 tables',
    ),
  FRESHET_TOPIC_REPLICATION: whole(1, 10, 1).describe('replication factor of a topic that is created'),
  FRESHET_TOPIC_RETENTION_HOURS: whole(1, 24 * 365, 7 * 24).describe(
    'how long a created topic keeps messages',
  ),
  FRESHET_MESSAGE_MAX_BYTES: whole(MiB, 1024 * MiB, 64 * MiB).describe(
    'largest message; topics are created with it',
  ),
  FRESHET_KAFKA_SESSION_MS: whole(1_000, 300_000, 10_000).describe(
    'how long the group waits for a sink that died before others, or its successor, take over',
  ),
  FRESHET_CONSUMER_GROUP: z
    .string()
    .default('')
    .describe('consumer group of the sinks; PREFIX-sink by default'),

  FRESHET_CLICKHOUSE_URL: z
    .url({protocol: /^https?$/, error: 'http://host:8123'})
    .default('http://127.0.0.1:8123')
    .describe('target server, HTTP interface'),
  FRESHET_CLICKHOUSE_USER: z
    .string()
    .default('default')
    .describe('user that may create and write the two databases'),
  FRESHET_CLICKHOUSE_PASSWORD: z.string().default('').describe('password of that user (secret)'),
  FRESHET_CLICKHOUSE_NATIVE_PORT: whole(1, 65_535, 9000).describe('native port, for `freshet sql` alone'),
  FRESHET_CLICKHOUSE_TLS_CA: file('CA certificate that ClickHouse must show, with an https URL'),
  FRESHET_CLICKHOUSE_TLS_CERT: file('client certificate for ClickHouse'),
  FRESHET_CLICKHOUSE_TLS_KEY: file('key of that certificate'),
  FRESHET_CLICKHOUSE_DATABASE: name('cdc').describe('database of the target tables'),
  FRESHET_ANALYTICS_DATABASE: name('ecommerce_analytics').describe('database of the views that people read'),
  FRESHET_ANALYTICS_SCHEMA: z
    .string()
    .default('public')
    .describe('tables of this schema have views without a schema prefix'),
  FRESHET_TIME_ZONE: z
    .string()
    .default('UTC')
    .refine(isTimeZone, 'must be a time zone such as Europe/Berlin')
    .describe('of the business: a day or month in the views is one there'),
  FRESHET_CURRENCY: z
    .string()
    .regex(/^[A-Z]{3}$/)
    .default('GBP')
    .describe(
      'of the business: orders in another one are in no metric, and the view other_currencies tells of them',
    ),
  FRESHET_CLICKHOUSE_FSYNC: flag.describe(
    'ClickHouse fsyncs every insert: a power cut loses nothing that was acknowledged',
  ),

  FRESHET_SNAPSHOT_VIA: z
    .enum(['clickhouse', 'kafka'])
    .default('clickhouse')
    .describe('where snapshots write: clickhouse, or kafka (through the topics, as `r` events)'),
  FRESHET_SNAPSHOT_WORKERS: whole(1, 32, 2).describe('chunks read at the same time in a snapshot'),
  FRESHET_SNAPSHOT_CHUNK_BYTES: whole(65_536, 4096 * MiB, 64 * MiB).describe(
    'size of a chunk in PostgreSQL: what is remembered as read, and for how long a table is locked against ALTER',
  ),
  FRESHET_SNAPSHOT_RATE_BYTES: whole(0, 65_536 * MiB, 0).describe(
    'bytes a second that a snapshot reads from PostgreSQL at most; 0 is no limit',
  ),
  FRESHET_BATCH_BYTES: whole(65_536, 256 * MiB, 8 * MiB).describe(
    'bytes a batch to Kafka and an insert into ClickHouse hold at most, but for one large row',
  ),
  FRESHET_DEAD_LETTER_TABLES: list('').describe(
    'tables that go on behind a row that cannot be applied, as patterns; any other is parked there',
  ),
  FRESHET_FLUSH_MS: whole(10, 60_000, 300).describe(
    'how long rows of a busy table wait for each other at most, to be inserted together',
  ),
  FRESHET_BUFFER_BYTES: whole(MiB, 4096 * MiB, 24 * MiB).describe(
    'bytes that the stages of a process hold together; when it is full, PostgreSQL waits',
  ),
  FRESHET_SILENCE_MS: whole(1_000, 3_600_000, 60_000).describe(
    'how long PostgreSQL may leave a request without an answer; Kafka half as long, ClickHouse twice',
  ),
  FRESHET_HTTP_PORT: whole(0, 65_535, 0).describe('port of /health, /metrics and the status page; 0 is none'),
  FRESHET_HTTP_HOST: z
    .string()
    .default('127.0.0.1')
    .describe('address that port listens on; the page shows numbers of the business to whoever can reach it'),
  FRESHET_LOG_LEVEL: z
    .enum(['debug', 'info', 'warn', 'error'])
    .default('info')
    .describe('least important line that is logged'),
} as const;

function isTimeZone(name: string): boolean {
  try {
    // An offset such as +02:00 is none: there is no daylight saving in it, and ClickHouse does not take it.
    return /^[A-Za-z]/.test(name) && new Intl.DateTimeFormat('en', {timeZone: name}) !== null;
  } catch {
    return false;
  }
}

const Rows = z.object(ROWS);
type Parsed = z.infer<typeof Rows>;
type Row = keyof Parsed;

/** Settings that say nothing without another one: where that is not as they need it, they would quietly be left out. */
const NEEDS: readonly (readonly [names: readonly Row[], needed: string, isMet: (s: Parsed) => boolean])[] = [
  [['FRESHET_PG_TLS_CA'], 'FRESHET_PG_TLS=verify', s => s.FRESHET_PG_TLS === 'verify'],
  [
    ['FRESHET_PG_TLS_CERT', 'FRESHET_PG_TLS_KEY'],
    'FRESHET_PG_TLS=require or verify',
    s => s.FRESHET_PG_TLS !== 'off',
  ],
  [
    ['FRESHET_KAFKA_TLS_CA', 'FRESHET_KAFKA_TLS_CERT', 'FRESHET_KAFKA_TLS_KEY'],
    'FRESHET_KAFKA_TLS=true',
    s => s.FRESHET_KAFKA_TLS,
  ],
  [
    ['FRESHET_KAFKA_SASL_USERNAME', 'FRESHET_KAFKA_SASL_PASSWORD'],
    'FRESHET_KAFKA_SASL_MECHANISM',
    s => s.FRESHET_KAFKA_SASL_MECHANISM !== 'none',
  ],
  [
    ['FRESHET_CLICKHOUSE_TLS_CA'],
    'an https URL in FRESHET_CLICKHOUSE_URL',
    s => s.FRESHET_CLICKHOUSE_URL.startsWith('https:'),
  ],
  [
    ['FRESHET_CLICKHOUSE_TLS_CERT', 'FRESHET_CLICKHOUSE_TLS_KEY'],
    'FRESHET_CLICKHOUSE_TLS_CA',
    s => s.FRESHET_CLICKHOUSE_TLS_CA !== undefined,
  ],
  ...(['PG', 'KAFKA', 'CLICKHOUSE'] as const).flatMap(server => {
    const [cert, key] = [`FRESHET_${server}_TLS_CERT`, `FRESHET_${server}_TLS_KEY`] as const;
    const each = (one: Row, other: Row) => [[one], other, (s: Parsed) => s[other] !== undefined] as const;
    return [each(cert, key), each(key, cert)];
  }),
];

const Settings = Rows.superRefine((s, context) => {
  for (const [names, needed, isMet] of NEEDS)
    for (const name of isMet(s) ? [] : names)
      if (s[name] !== undefined) context.addIssue({code: 'custom', path: [name], message: `needs ${needed}`});
})
  .refine(s => s.FRESHET_TRANSPORT === 'direct' || s.FRESHET_KAFKA_BROKERS.length > 0, {
    path: ['FRESHET_KAFKA_BROKERS'],
    error: 'needed with FRESHET_TRANSPORT=kafka (or set FRESHET_TRANSPORT=direct)',
  })
  .refine(s => s.FRESHET_KAFKA_SASL_MECHANISM === 'none' || s.FRESHET_KAFKA_SASL_USERNAME !== undefined, {
    path: ['FRESHET_KAFKA_SASL_USERNAME'],
    error: 'needed with FRESHET_KAFKA_SASL_MECHANISM',
  })
  .refine(s => s.FRESHET_SNAPSHOT_VIA === 'clickhouse' || s.FRESHET_TRANSPORT === 'kafka', {
    path: ['FRESHET_SNAPSHOT_VIA'],
    error: 'there are no topics with FRESHET_TRANSPORT=direct: clickhouse',
  })
  .refine(s => s.FRESHET_CLICKHOUSE_DATABASE !== s.FRESHET_ANALYTICS_DATABASE, {
    path: ['FRESHET_ANALYTICS_DATABASE'],
    error: 'must be another database than FRESHET_CLICKHOUSE_DATABASE',
  })
  .transform(s => ({
    ...s,
    FRESHET_CONSUMER_GROUP: s.FRESHET_CONSUMER_GROUP || `${s.FRESHET_TOPIC_PREFIX}-sink`,
  }));
export type Settings = z.infer<typeof Settings>;
export type Environment = Readonly<Record<string, string | undefined>>;

/** Read by the local stack, the tests and the failpoints; they are not settings of the pipeline. */
const OTHERS = /^FRESHET_(CONFIG|FAILPOINT|STACK_\w+|TEST_\w+)$/;

/**
 * Settings from the environment over those of the file that FRESHET_CONFIG names (lines of NAME=value). Throws
 * `settings.invalid` with every name that is unknown, bad or missing, and what would be right; no secret is printed.
 */
export function loadSettings(environment: Environment): Settings {
  const path = environment.FRESHET_CONFIG;
  const given = whatIsSet(path ? parseEnv(read('FRESHET_CONFIG', path)) : {});
  const nearer = whatIsSet(environment);
  for (const [name, value] of Object.entries(nearer)) {
    if (!name.startsWith('FRESHET_') || OTHERS.test(name)) continue;
    given[name] = value;
    // A secret of the environment also goes over the file's way to it, and the other way round.
    const twin = isSecret(name) ? `${name}_FILE` : name.replace(/_FILE$/, '');
    if (twin !== name && nearer[twin] === undefined) delete given[twin];
  }
  const problems: string[] = [];
  for (const [name, value] of Object.entries(given)) {
    const plain = plainName(name);
    if (plain !== name) {
      if (given[plain] !== undefined) problems.push(`${name}: ${plain} is given too; one of them is enough`);
      else given[plain] = read(name, value).trimEnd();
      delete given[name];
    } else if (!(name in ROWS)) problems.push(`${name}: no such setting${nearest(name)}`);
  }
  const parsed = Settings.safeParse(given);
  for (const issue of parsed.error?.issues ?? []) {
    const name = issue.path.join('.');
    const value = given[name];
    // Behind an @ stands the rest of a URL, and before it may be a password.
    const shown = value === undefined || isSecret(name) || value.includes('@') ? '' : `=${value}`;
    problems.push(`${name}${shown}: ${issue.message}`);
  }
  if (problems.length > 0 || !parsed.success)
    throw new PipelineError('settings.invalid', problems.join('\n'));
  return parsed.data;
}

/** Without those that are empty: that is how a compose file passes what was not set. Only names that are none stay. */
const whatIsSet = (values: Environment): Record<string, string> =>
  Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) =>
      value === undefined || (value === '' && plainName(name) in ROWS) ? [] : [[name, value]],
    ),
  );

/** The setting that the name of a secret's file stands for, any other name as it is. */
function plainName(name: string): string {
  const plain = name.replace(/_FILE$/, '');
  return isSecret(plain) ? plain : name;
}

const isSecret = (name: string): boolean =>
  name in ROWS && (ROWS[name as keyof typeof ROWS].description ?? '').includes('(secret)');

function read(setting: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new PipelineError('settings.invalid', `${setting}: cannot read ${path}`, {cause: error});
  }
}

/** A likely meant name: the one that shares the longest beginning. */
function nearest(name: string): string {
  const shared = (other: string): number => {
    const differs = [...other].findIndex((letter, i) => letter !== name[i]);
    return differs < 0 ? other.length : differs;
  };
  const best = Object.keys(ROWS).reduce((a, b) => (shared(b) > shared(a) ? b : a));
  return shared(best) > 'FRESHET_'.length ? ` (did you mean ${best}?)` : '';
}

/** The table as text, for --help. */
export function settingsHelp(): {name: string; fallback: string; text: string}[] {
  return Object.entries(ROWS).map(([name, row]) => {
    const parsed = row.safeParse(undefined);
    const value = parsed.success ? parsed.data : undefined;
    const fallback = parsed.success
      ? Array.isArray(value)
        ? value.join(',')
        : String(value ?? '')
      : 'required';
    return {name, fallback, text: row.description ?? ''};
  });
}
