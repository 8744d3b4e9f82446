import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {PipelineError} from '../failures.ts';
import {type Environment, loadSettings, settingsHelp} from './settings.ts';

const SECRET = 'hunter2-never-print-me';
const MINIMAL = {FRESHET_PG_URL: `postgres://u:${SECRET}@h/d`, FRESHET_KAFKA_BROKERS: 'k1:9092'};

/** The lines of the refusal, none of which may hold a secret. */
function refusal(t: ExecutionContext, environment: Environment): string[] {
  const error = t.throws(() => loadSettings(environment), {instanceOf: PipelineError});
  t.is(error?.code, 'settings.invalid');
  t.false(error!.message.includes(SECRET));
  return error!.message.split('\n');
}

async function fileOf(t: ExecutionContext, text: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'freshet-settings-'));
  t.teardown(() => rm(folder, {recursive: true}));
  const file = path.join(folder, 'file');
  await writeFile(file, text);
  return file;
}

test('what is not given has its default', t => {
  const settings = loadSettings(MINIMAL);
  t.like(settings, {
    FRESHET_KAFKA_BROKERS: ['k1:9092'],
    FRESHET_TABLES_INCLUDE: ['public.*'],
    FRESHET_TABLES_EXCLUDE: [],
    FRESHET_TRANSPORT: 'kafka',
    FRESHET_KAFKA_TLS: false,
    FRESHET_FLUSH_MS: 300,
    FRESHET_BATCH_BYTES: 8 << 20,
    FRESHET_CLICKHOUSE_URL: 'http://127.0.0.1:8123',
    FRESHET_CONSUMER_GROUP: 'freshet-sink',
  });
});

test('values are read as what they are', t => {
  const settings = loadSettings({
    ...MINIMAL,
    FRESHET_KAFKA_BROKERS: ' k1:9092, k2:9092,',
    FRESHET_KAFKA_TLS: 'true',
    FRESHET_FLUSH_MS: '1000',
    FRESHET_TOPIC_PREFIX: 'shop',
    PATH: '/bin',
    FRESHET_FAILPOINT: '',
    FRESHET_TEST_SKIPS: 'elsewhere',
  });
  t.like(settings, {
    FRESHET_KAFKA_BROKERS: ['k1:9092', 'k2:9092'],
    FRESHET_KAFKA_TLS: true,
    FRESHET_FLUSH_MS: 1000,
    FRESHET_CONSUMER_GROUP: 'shop-sink',
  });
});

const REFUSED: readonly (readonly [what: string, given: Environment, lines: readonly RegExp[]])[] = [
  [
    'an unknown name, with the one that was meant',
    {FRESHET_KAFKA_BROKER: 'x'},
    [/^FRESHET_KAFKA_BROKER: no such setting \(did you mean FRESHET_KAFKA_BROKERS\?\)$/],
  ],
  ['an unknown name like no other', {FRESHET_QUUX: 'x'}, [/^FRESHET_QUUX: no such setting$/]],
  ['a word out of a list', {FRESHET_TRANSPORT: 'nats'}, [/^FRESHET_TRANSPORT=nats: .*"kafka"\|"direct"/]],
  ['a number too small', {FRESHET_FLUSH_MS: '5'}, [/^FRESHET_FLUSH_MS=5: .*>=10$/]],
  ['a number too large', {FRESHET_HTTP_PORT: '70000'}, [/^FRESHET_HTTP_PORT=70000: .*<=65535$/]],
  ['what is no number', {FRESHET_BATCH_BYTES: '8MB'}, [/^FRESHET_BATCH_BYTES=8MB: .*number/]],
  ['what is no flag', {FRESHET_KAFKA_TLS: 'yes'}, [/^FRESHET_KAFKA_TLS=yes: .*"true"\|"false"/]],
  [
    'a name that a slot cannot have',
    {FRESHET_SLOT: 'My-Slot'},
    [/^FRESHET_SLOT=My-Slot: lower-case letters/],
  ],
  [
    'a prefix that a topic cannot have',
    {FRESHET_TOPIC_PREFIX: 'a b'},
    [/^FRESHET_TOPIC_PREFIX=a b: .*A-Za-z0-9/],
  ],
  [
    'another kind of URL, without its password',
    {FRESHET_PG_URL: `mysql://u:${SECRET}@h/d`},
    [/^FRESHET_PG_URL: postgres:\/\/user:password@host:5432\/database$/],
  ],
  [
    'a URL that is no secret by itself, but holds one',
    {FRESHET_CLICKHOUSE_URL: `ftp://u:${SECRET}@h`},
    [/^FRESHET_CLICKHOUSE_URL: http:\/\/host:8123$/],
  ],
  ['no source', {FRESHET_PG_URL: undefined}, [/^FRESHET_PG_URL: postgres:\/\//]],
  ['no brokers', {FRESHET_KAFKA_BROKERS: undefined}, [/^FRESHET_KAFKA_BROKERS: needed .*TRANSPORT=direct/]],
  [
    'SASL without a user',
    {FRESHET_KAFKA_SASL_MECHANISM: 'plain', FRESHET_KAFKA_SASL_PASSWORD: SECRET},
    [/^FRESHET_KAFKA_SASL_USERNAME: needed with FRESHET_KAFKA_SASL_MECHANISM$/],
  ],
  [
    'files for TLS to PostgreSQL, which is off',
    {FRESHET_PG_TLS_CA: '/ca', FRESHET_PG_TLS_CERT: '/cert', FRESHET_PG_TLS_KEY: '/key'},
    [
      /^FRESHET_PG_TLS_CA=\/ca: needs FRESHET_PG_TLS=verify$/,
      /^FRESHET_PG_TLS_CERT=\/cert: needs FRESHET_PG_TLS=require or verify$/,
      /^FRESHET_PG_TLS_KEY=\/key: needs FRESHET_PG_TLS=require or verify$/,
    ],
  ],
  [
    'a CA that nothing is compared with',
    {FRESHET_PG_TLS: 'require', FRESHET_PG_TLS_CA: '/ca'},
    [/^FRESHET_PG_TLS_CA=\/ca: needs FRESHET_PG_TLS=verify$/],
  ],
  [
    'TLS to PostgreSQL by its URL',
    {FRESHET_PG_URL: `${MINIMAL.FRESHET_PG_URL}?sslmode=require`},
    [/^FRESHET_PG_URL: no sslmode .*FRESHET_PG_TLS says it$/],
  ],
  [
    'files for TLS to Kafka, which is off',
    {FRESHET_KAFKA_TLS_CA: '/ca', FRESHET_KAFKA_TLS_CERT: '/cert', FRESHET_KAFKA_TLS_KEY: '/key'},
    [/_CA=\/ca: needs FRESHET_KAFKA_TLS=true$/, /_CERT.*TLS=true$/, /_KEY.*TLS=true$/],
  ],
  [
    'files for TLS to ClickHouse without the CA',
    {
      FRESHET_CLICKHOUSE_URL: 'https://h:8443',
      FRESHET_CLICKHOUSE_TLS_CERT: '/cert',
      FRESHET_CLICKHOUSE_TLS_KEY: '/key',
    },
    [/^FRESHET_CLICKHOUSE_TLS_CERT=\/cert: needs FRESHET_CLICKHOUSE_TLS_CA$/, /_KEY.*_CA$/],
  ],
  [
    'a CA for ClickHouse without TLS',
    {FRESHET_CLICKHOUSE_TLS_CA: '/ca'},
    [/^FRESHET_CLICKHOUSE_TLS_CA=\/ca: needs an https URL in FRESHET_CLICKHOUSE_URL$/],
  ],
  [
    'certificates without their keys, and the other way round',
    {
      FRESHET_PG_TLS: 'verify',
      FRESHET_PG_TLS_CERT: '/cert',
      FRESHET_KAFKA_TLS: 'true',
      FRESHET_KAFKA_TLS_KEY: '/key',
    },
    [
      /^FRESHET_PG_TLS_CERT=\/cert: needs FRESHET_PG_TLS_KEY$/,
      /^FRESHET_KAFKA_TLS_KEY=\/key: needs FRESHET_KAFKA_TLS_CERT$/,
    ],
  ],
  [
    'who to Kafka, but not how',
    {FRESHET_KAFKA_SASL_USERNAME: 'u', FRESHET_KAFKA_SASL_PASSWORD: SECRET},
    [
      /^FRESHET_KAFKA_SASL_USERNAME=u: needs FRESHET_KAFKA_SASL_MECHANISM$/,
      /^FRESHET_KAFKA_SASL_PASSWORD: needs FRESHET_KAFKA_SASL_MECHANISM$/,
    ],
  ],
  [
    'one database for both',
    {FRESHET_ANALYTICS_DATABASE: 'cdc'},
    [/^FRESHET_ANALYTICS_DATABASE=cdc: must be another database/],
  ],
  [
    'a snapshot through topics that are not there',
    {FRESHET_TRANSPORT: 'direct', FRESHET_SNAPSHOT_VIA: 'kafka'},
    [/^FRESHET_SNAPSHOT_VIA=kafka: there are no topics/],
  ],
  [
    'several at once',
    {FRESHET_FLUSH_MS: '1.5', FRESHET_LOG_LEVEL: 'loud', FRESHET_X: '1'},
    [/^FRESHET_X: /, /^FRESHET_FLUSH_MS=1\.5: .*int/, /^FRESHET_LOG_LEVEL=loud: .*"debug"/],
  ],
];
for (const [what, given, lines] of REFUSED) {
  test(`refused: ${what}`, t => {
    const found = refusal(t, {...MINIMAL, ...given});
    t.is(found.length, lines.length, found.join('\n'));
    for (const [i, line] of lines.entries()) t.regex(found[i]!, line);
  });
}

test('no brokers are needed where there is no Kafka', t => {
  t.notThrows(() => loadSettings({FRESHET_PG_URL: MINIMAL.FRESHET_PG_URL, FRESHET_TRANSPORT: 'direct'}));
});

test('a secret may come from a file; other settings may not', async t => {
  const file = await fileOf(t, `${SECRET}\n`);
  const settings = loadSettings({...MINIMAL, FRESHET_CLICKHOUSE_PASSWORD_FILE: file});
  t.is(settings.FRESHET_CLICKHOUSE_PASSWORD, SECRET);
  t.deepEqual(refusal(t, {...MINIMAL, FRESHET_CLICKHOUSE_PASSWORD_FILE: `${file}.not`}), [
    `FRESHET_CLICKHOUSE_PASSWORD_FILE: cannot read ${file}.not`,
  ]);
  t.regex(refusal(t, {...MINIMAL, FRESHET_SLOT_FILE: file})[0]!, /^FRESHET_SLOT_FILE: no such setting/);
  t.deepEqual(refusal(t, {...MINIMAL, FRESHET_PG_PASSWORD: SECRET, FRESHET_PG_PASSWORD_FILE: file}), [
    'FRESHET_PG_PASSWORD_FILE: FRESHET_PG_PASSWORD is given too; one of them is enough',
  ]);
});

test('a bad secret that came from a file is not printed either', async t => {
  const file = await fileOf(t, `http://u:${SECRET}@h/d`);
  const {FRESHET_PG_URL, ...rest} = MINIMAL;
  t.truthy(FRESHET_PG_URL);
  t.deepEqual(refusal(t, {...rest, FRESHET_PG_URL_FILE: file}), [
    'FRESHET_PG_URL: postgres://user:password@host:5432/database',
  ]);
});

test('a file of settings lies below the environment', async t => {
  const secret = await fileOf(t, 'from a file of its own');
  const file = await fileOf(
    t,
    `# comment\nFRESHET_SLOT=from_file\nFRESHET_FLUSH_MS="700"\nFRESHET_KAFKA_BROKERS=k9:9092\nFRESHET_PG_PASSWORD_FILE=${secret}\n`,
  );
  const environment = {...MINIMAL, FRESHET_CONFIG: file, FRESHET_FLUSH_MS: '800'};
  t.like(loadSettings(environment), {
    FRESHET_SLOT: 'from_file',
    FRESHET_FLUSH_MS: 800,
    FRESHET_KAFKA_BROKERS: ['k1:9092'],
    FRESHET_PG_PASSWORD: 'from a file of its own',
  });
  t.is(loadSettings({...environment, FRESHET_PG_PASSWORD: 'nearer'}).FRESHET_PG_PASSWORD, 'nearer');
  const wrong = await fileOf(t, 'FRESHET_SLOTS=x\nSHELL=/bin/sh');
  t.deepEqual(refusal(t, {...MINIMAL, FRESHET_CONFIG: wrong}), [
    'FRESHET_SLOTS: no such setting (did you mean FRESHET_SLOT?)',
    'SHELL: no such setting',
  ]);
  t.deepEqual(refusal(t, {...MINIMAL, FRESHET_CONFIG: `${file}.not`}), [
    `FRESHET_CONFIG: cannot read ${file}.not`,
  ]);
});

test('what is empty is what was not set, in the environment and in a file', async t => {
  const secret = await fileOf(t, SECRET);
  const file = await fileOf(
    t,
    `FRESHET_SLOT=from_file\nFRESHET_PG_PASSWORD_FILE=${secret}\nFRESHET_CLICKHOUSE_PASSWORD=${SECRET}\nFRESHET_FLUSH_MS=\nFRESHET_KAFKA_SASL_PASSWORD_FILE=\n`,
  );
  const empty = {
    FRESHET_SLOT: '',
    FRESHET_PG_PASSWORD: '',
    FRESHET_CLICKHOUSE_PASSWORD_FILE: '',
    FRESHET_KAFKA_SASL_MECHANISM: '',
  };
  t.like(loadSettings({...MINIMAL, ...empty, FRESHET_CONFIG: file}), {
    FRESHET_SLOT: 'from_file',
    FRESHET_PG_PASSWORD: SECRET,
    FRESHET_CLICKHOUSE_PASSWORD: SECRET,
    FRESHET_FLUSH_MS: 300,
    FRESHET_KAFKA_SASL_PASSWORD: undefined,
    FRESHET_KAFKA_SASL_MECHANISM: 'none',
  });
  // Which of the two was given counts, not which is empty beside it.
  const nearer = {FRESHET_PG_PASSWORD: 'nearer', FRESHET_PG_PASSWORD_FILE: ''};
  t.is(loadSettings({...MINIMAL, ...nearer, FRESHET_CONFIG: file}).FRESHET_PG_PASSWORD, 'nearer');
  t.deepEqual(refusal(t, {...MINIMAL, FRESHET_SLOTS: ''}), [
    'FRESHET_SLOTS: no such setting (did you mean FRESHET_SLOT?)',
  ]);
});

test('the table of settings, as help and docs show it', t => {
  t.snapshot(settingsHelp());
});
