import {mkdir, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {answers} from './ports.ts';
import type {ServerRow, Site} from './server.ts';

export const clickhouseUrl = ({ports}: {ports: Site['ports']}): string =>
  `http://127.0.0.1:${ports.clickhouseHttp}`;

/** ClickHouse 26.7: the library of the npm package `chdb` in a process of its own, listening like a server. */
export const clickhouse: ServerRow = {
  title: 'ClickHouse',
  async prepare({dir, ports, clickhouseUsersXml = DEFAULT_USERS}) {
    const data = path.join(dir, 'data');
    const file = (name: string) => path.join(dir, name);
    await mkdir(data, {recursive: true});
    // The `system` database is in memory: a log table of the last run would be in the way of this run's.
    await rm(path.join(data, 'data', 'system'), {recursive: true, force: true});
    await writeFile(file('users.xml'), clickhouseUsersXml, {mode: 0o600});
    await writeFile(file('config.xml'), config(file('users.xml')));
    await writeFile(file('start.sql'), START);
    const child = fileURLToPath(new URL('clickhouse-child.ts', import.meta.url));
    const args = [
      `--config-file=${file('config.xml')}`,
      `--path=${data}`,
      '--listen_host=127.0.0.1',
      `--http_port=${ports.clickhouseHttp}`,
      `--tcp_port=${ports.clickhouseNative}`,
      `--queries-file=${file('start.sql')}`,
    ];
    return {file: process.execPath, args: [child, ...args]};
  },
  async ready(site) {
    const ping = await fetch(`${clickhouseUrl(site)}/ping`, {
      headers: {connection: 'close'},
      signal: AbortSignal.timeout(2_000),
    });
    return (await ping.text()).startsWith('Ok') && (await answers(site.ports.clickhouseNative));
  },
  // It ends when its standard input does; with open connections it would wait five seconds for them.
  // No signal of ours reaches its handlers, and data survive SIGKILL.
  stop: [{signal: null, graceMs: 3_000}],
};

// The last query reads standard input: it runs as long as the process that holds the other end.
const START = `SYSTEM START LISTEN HTTP;
SYSTEM START LISTEN TCP;
SELECT count() FROM file('-', LineAsString) FORMAT Null;
`;

const DEFAULT_USERS = `<clickhouse>
  <profiles><default><async_insert>0</async_insert></default></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </default>
  </users>
</clickhouse>
`;

const xml = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

const logTable = (name: string) => `<${name}>
    <database>system</database>
    <table>${name}</table>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds>
    <ttl>event_date + INTERVAL 1 DAY DELETE</ttl>
  </${name}>`;

// Memory: a third of the 24 GiB that this stack, a pipeline and a browser are meant to share.
// Tables of the Kafka engine, for comparison: as many threads as a server has, not the library's one for each core.
const config = (usersFile: string) => `<clickhouse>
  <logger><console>1</console><console_log_level>error</console_log_level></logger>
  <max_server_memory_usage>${8 * 2 ** 30}</max_server_memory_usage>
  <background_message_broker_schedule_pool_size>16</background_message_broker_schedule_pool_size>
  ${logTable('query_log')}
  ${logTable('part_log')}
  <users_config>${xml(usersFile)}</users_config>
  <user_directories><users_xml><path>${xml(usersFile)}</path></users_xml></user_directories>
</clickhouse>
`;
