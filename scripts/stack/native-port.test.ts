import {execFile, spawnSync} from 'node:child_process';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import test from 'ava';
import {freshet} from '../../cdc/test-support/command-line.ts';
import {skip} from './skip.ts';
import {startStack} from './stack.ts';

const user = (name: string, password: string) => `<${name}>
  <password>${password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
</${name}>`;
const USERS = `<clickhouse>
  <profiles><default><async_insert>0</async_insert></default></profiles>
  <quotas><default/></quotas>
  <users>${user('default', '')}${user('reader', 'h&amp;sh')}</users>
</clickhouse>`;
const FREE = {postgres: 0, kafka: 0, clickhouseHttp: 0, clickhouseNative: 0};

// Debian's is of 2018 (18.16): what it can do on the native port, every later one can.
test('clickhouse-client reads tables and views on the native port', async t => {
  if (spawnSync('clickhouse-client', ['--version'], {stdio: 'ignore'}).error)
    return skip(t, 'clickhouse-client is not installed');
  const dataDir = await mkdtemp(path.join(tmpdir(), 'freshet-native-'));
  t.teardown(() => rm(dataDir, {recursive: true, force: true}));
  const stack = await startStack({
    dataDir,
    kafka: false,
    durable: false,
    ports: FREE,
    clickhouseUsersXml: USERS,
  });
  t.teardown(() => stack.stop());
  const {host, port} = stack.clickhouseNative;
  const client = async (query: string): Promise<string> => {
    const args = [`--host=${host}`, `--port=${port}`, `--query=${query}`];
    const running = promisify(execFile)('clickhouse-client', args);
    running.child.stdin?.end(); // it reads rows from there
    return (await running).stdout;
  };
  t.is(await client('SELECT 1'), '1\n');
  await client('CREATE DATABASE shop');
  await client(
    `CREATE TABLE shop.prices (id Int64, price Decimal(12, 3), at DateTime64(6, 'UTC'), note Nullable(String), state LowCardinality(String), _version UInt128, _is_deleted UInt8)
     ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id`,
  );
  await client(
    `INSERT INTO shop.prices SELECT number, toDecimal64('1.005', 3), '2026-01-02 03:04:05.678901', NULL, 'new', 1, 0 FROM numbers(3)`,
  );
  await client(`INSERT INTO shop.prices SELECT 1, -2.5, '2026-01-02 03:04:05', 'x', 'sold', 2, 0`);
  await client(`INSERT INTO shop.prices SELECT 2, 0, '2026-01-02 03:04:05', NULL, 'new', 2, 1`);
  await client(
    `CREATE VIEW shop.current AS SELECT id, price, at, note, state FROM shop.prices FINAL WHERE _is_deleted = 0`,
  );
  t.is(await client('SELECT count(), sum(id), max(note) FROM shop.current'), '2\t1\tx\n');
  const current =
    'SELECT id, toString(price), toString(at), note, toString(state) FROM shop.current ORDER BY id';
  t.is(
    await client(current),
    '0\t1.005\t2026-01-02 03:04:05.678901\t\\N\tnew\n1\t-2.5\t2026-01-02 03:04:05.000000\tx\tsold\n',
  );

  const settings = {
    FRESHET_PG_URL: stack.pgUrl,
    FRESHET_TRANSPORT: 'direct',
    FRESHET_CLICKHOUSE_URL: stack.clickhouseUrl,
    FRESHET_CLICKHOUSE_NATIVE_PORT: String(port),
    FRESHET_CLICKHOUSE_USER: 'reader',
    FRESHET_CLICKHOUSE_PASSWORD: 'h&sh',
    FRESHET_ANALYTICS_DATABASE: 'shop',
  };
  const asked = await freshet(t, settings, ['sql'], {input: 'SELECT count() FROM current'});
  t.deepEqual(asked, {code: 0, stdout: '2\n', stderr: ''});
  const dropped = await freshet(t, settings, ['sql'], {input: 'DROP TABLE prices'});
  t.not(dropped.code, 0);
  t.regex(dropped.stderr, /readonly/);
});
