import {once} from 'node:events';
import {mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import type {AddressInfo} from 'node:net';
import {tmpdir} from 'node:os';
import path from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {skip} from '../scripts/stack/skip.ts';
import {exitCode, verify} from './reconcile/verify.ts';
import {settingsHelp} from './settings/settings.ts';
import {command} from './sink/clickhouse.ts';
import {freshet, keepRunning} from './test-support/command-line.ts';
import {makeWorld, startPipeline, transport} from './test-support/start-pipeline.ts';

/** A server that nobody runs: the discard port. */
const NOWHERE = {
  FRESHET_PG_URL: 'postgres://reader:hush-hush@127.0.0.1:9/shop',
  FRESHET_TRANSPORT: 'direct',
  FRESHET_CLICKHOUSE_URL: 'http://127.0.0.1:9',
  FRESHET_CLICKHOUSE_PASSWORD: 'hush-too',
};

async function folder(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'freshet-main-'));
  t.teardown(() => rm(dir, {recursive: true, force: true}));
  return dir;
}

test('--help names every command and every setting, with its default', async t => {
  const {code, stdout} = await freshet(t, {}, ['--help']);
  t.is(code, 0);
  const lines = stdout.split('\n');
  for (const {name, fallback, text} of settingsHelp()) {
    const line = lines.find(line => line.trim().split(' ')[0] === name);
    t.true(line?.includes(text), name);
    if (fallback) t.true(line?.endsWith(`[${fallback}]`), name);
  }
  for (const command of 'run capture sink preflight migrate status verify resync triggers teardown sql dashboards'.split(
    ' ',
  ))
    t.regex(stdout, new RegExp(`^  ${command} `, 'm'));
});

test('what cannot be run says why in few lines, with what to do, and ends with 1', async t => {
  const cases = [
    {args: ['frobnicate'], says: [/unknown command 'frobnicate'/, /freshet --help/]},
    {args: ['verify', '--timeout', 'soon'], says: [/--timeout .*'soon'/]},
    {
      args: ['status'],
      settings: {FRESHET_FLUSH_SM: '3', FRESHET_BATCH_BYTES: 'lots'},
      says: [
        /FRESHET_FLUSH_SM: no such setting \(did you mean FRESHET_FLUSH_MS\?\)/,
        /FRESHET_BATCH_BYTES=lots/,
        /\[settings\.invalid\] .*freshet --help/,
      ],
    },
    {
      args: ['run'],
      settings: {FRESHET_PG_URL: 'mysql://reader:hush-hush@127.0.0.1/shop'},
      says: [/FRESHET_PG_URL: postgres:\/\/user:.+@host/],
    },
    {args: ['capture'], says: [/FRESHET_TRANSPORT=direct.*freshet run/, /\[settings\.invalid\]/]},
    {args: ['migrate'], says: [/ClickHouse: .*ECONNREFUSED/, /\[ch\.unavailable\] is ClickHouse up/]},
    {args: ['teardown', '--yes'], says: [/PostgreSQL: .*ECONNREFUSED/, /\[pg\.unavailable\]/]},
    {args: ['status'], settings: {FRESHET_CONFIG: '/no/such.env'}, says: [/FRESHET_CONFIG.*\/no\/such\.env/]},
  ];
  for (const {args, settings, says} of cases) {
    const {code, stdout, stderr} = await freshet(t, {...NOWHERE, ...settings}, args);
    const title = `${args.join(' ')}\n${stderr}`;
    t.is(code, 1, title);
    t.is(stdout, '', title);
    for (const words of says) t.regex(stderr, words, title);
    t.notRegex(stderr, /^\s+at /m, 'a stack trace');
    t.notRegex(stderr, /hush/, 'a password');
    t.true(stderr.split('\n').length < 6, title);
  }
});

test('a port of the status page that is taken is named', async t => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  t.teardown(() => other.close());
  const {port} = other.address() as AddressInfo;
  const {code, stderr} = await freshet(t, {...NOWHERE, FRESHET_HTTP_PORT: String(port)}, ['run']);
  t.is(code, 1);
  t.regex(stderr, new RegExp(`FRESHET_HTTP_PORT=${port}.*\\n.*\\[settings\\.invalid\\]`));
  t.notRegex(stderr, /^\s+at /m);
});

test('SIGTERM ends in good order also what waits for a server', async t => {
  const running = keepRunning(t, NOWHERE, ['run']);
  await running.logged('ch.unavailable');
  t.is(await running.stop(), 0, running.log());
  t.notRegex(running.log(), /hush/);
});

test('signals that come together are one: what runs drains', async t => {
  const world = await makeWorld(t, 'CREATE TABLE a (id int PRIMARY KEY)');
  const running = keepRunning(t, world.environment, ['run']);
  await running.logged('streaming');
  // Two kinds: of one kind the system may deliver two as one.
  process.kill(running.pid, 'SIGINT');
  t.is(await running.stop(), 0, running.log());
});

test('dashboards build writes the files that are in the project', async t => {
  const dir = await folder(t);
  const {code, stdout, stderr} = await freshet(t, {}, ['dashboards', 'build', '--out', 'there'], {cwd: dir});
  t.is(code, 0, stderr);
  const files = await readdir(path.join(dir, 'there/generated'));
  t.true(files.length >= 3, stdout);
  for (const file of files) {
    t.is(
      await readFile(path.join(dir, 'there/generated', file), 'utf8'),
      await readFile(path.join(import.meta.dirname, '../dashboards/generated', file), 'utf8'),
      file,
    );
    t.true(stdout.includes(file));
  }
});

test('settings of a file, named from another folder, and a secret from a file of its own', async t => {
  const world = await makeWorld(t, 'CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)');
  const dir = await folder(t);
  await mkdir(path.join(dir, 'work'));
  await writeFile(path.join(dir, 'pg-url'), `${world.environment.FRESHET_PG_URL}\n`);
  const given = {
    ...world.environment,
    FRESHET_PG_URL: undefined,
    FRESHET_PG_URL_FILE: path.join(dir, 'pg-url'),
  };
  await writeFile(
    path.join(dir, 'freshet.env'),
    `# a comment\n${Object.entries(given)
      .flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}\n`]))
      .join('')}`,
  );
  const settings = {FRESHET_CONFIG: '../freshet.env', FRESHET_LOG_LEVEL: 'warn'};
  const cwd = path.join(dir, 'work');
  const migrated = await freshet(t, settings, ['migrate'], {cwd});
  t.regex(migrated.stdout, /^[1-9]\d* applied, 0 there before$/m, migrated.stderr);
  t.is(migrated.code, 0);
  const again = await freshet(t, settings, ['migrate'], {cwd});
  t.regex(again.stdout, /^0 applied, [1-9]\d* there before$/m, again.stderr);
  const checked = await freshet(t, settings, ['preflight'], {cwd});
  t.regex(checked.stdout, /✓ public\.items, key \(id\)/, checked.stderr);
  t.is(checked.code, 0);
});

test('capture and two sinks, each a process of its own', async t => {
  if (transport() === 'direct') return skip(t, 'separate stages need Kafka');
  const world = await makeWorld(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' || i FROM generate_series(1, 300) i;
     CREATE TABLE b (id int PRIMARY KEY, v text)`,
  );
  const sinks = [keepRunning(t, world.environment, ['sink']), keepRunning(t, world.environment, ['sink'])];
  const capture = keepRunning(t, world.environment, ['capture']);
  await capture.logged('streaming');
  await world.pg.query(`INSERT INTO b SELECT i, 'w' || i FROM generate_series(1, 300) i`);
  await world.pg.query(`UPDATE a SET v = 'x' WHERE id % 2 = 0; DELETE FROM a WHERE id % 3 = 0`);
  await world.caughtUp();
  // One of them goes, and the other one does the rest.
  t.is(await sinks[0]?.stop(), 0, sinks[0]?.log());
  await world.pg.query(`UPDATE b SET v = 'y'; DELETE FROM a WHERE id % 5 = 0`);
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  t.deepEqual(
    verdicts.map(({table, verdict, rows}) => [table, verdict, rows.clickhouse]),
    [
      ['public.a', 'equal', 160n],
      ['public.b', 'equal', 300n],
    ],
  );
  t.is(exitCode(verdicts), 0);
  t.is(await capture.stop(), 0, capture.log());
  t.is(await sinks[1]?.stop(), 0, sinks[1]?.log());
});

test('verify names what differs, --repair puts it right, and the exit codes say so', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE items (id int PRIMARY KEY, v text); INSERT INTO items SELECT i, 'v' || i FROM generate_series(1, 30) i`,
  );
  await world.caughtUp();
  const target = `${world.settings.FRESHET_CLICKHOUSE_DATABASE}.public__items`;
  await command(
    world.ch,
    `INSERT INTO ${target} SELECT * REPLACE (if(id = 3, 'w', v) AS v, id > 3 AS _is_deleted, _version + 1 AS _version) FROM (SELECT * FROM ${target} FINAL WHERE id BETWEEN 3 AND 27)`,
  );
  const different = await freshet(t, world.environment, ['verify', '--timeout', '60']);
  t.is(different.code, 1, different.stderr);
  t.regex(different.stdout, /^public\.items +different +30 +6 /m);
  t.regex(different.stdout, /^✗ public\.items \{"id":"3"\}: changed v$/m);
  t.regex(different.stdout, /^✗ public\.items: and 5 keys more$/m);
  const repaired = await freshet(t, world.environment, ['verify', '--repair', '--timeout', '60']);
  t.is(repaired.code, 0, repaired.stdout + repaired.stderr);
  t.regex(repaired.stdout, /^public\.items +equal +30 +30 /m);
  t.regex(repaired.stdout, /^↻ public\.items \{"id":"10"\}: missing$/m);
  t.regex(repaired.stdout, /^✓ public\.items: 25 keys read again at [0-9A-F]+\/[0-9A-F]+, 0 still differ$/m);
  const equal = await freshet(t, world.environment, ['verify']);
  t.is(equal.code, 0, equal.stdout);
  t.regex(
    equal.stdout,
    /^· public\.items: PostgreSQL 30 rows, 0\.0 MiB in .* rows\/s.*; ClickHouse 30 rows/m,
  );
});
