import {spawnSync} from 'node:child_process';
import {readFileSync} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import {kafkaVersion} from '../kafka/kafka.mjs';
import type {Stack} from '../stack/stack.ts';

/** What figures were taken on, and of which commit. */
export type Machine = Readonly<Record<string, string>>;

export const COMMIT = 'Freshet';
export const LOAD = 'load before the first run';

/** The machine and the versions of what runs on it. */
export async function describeMachine({pgUrl, clickhouseUrl}: Stack): Promise<Machine> {
  const client = new pg.Client(pgUrl);
  await client.connect();
  const {rows} = await client.query<{version: string}>("SELECT current_setting('server_version') AS version");
  await client.end();
  const answer = await fetch(`${clickhouseUrl}/?query=SELECT%20version()`);
  const java = /version "([^"]+)"/.exec(
    spawnSync('java', ['-version'], {encoding: 'utf8'}).stderr ?? '',
  )?.[1];
  const pom = readFileSync(new URL('peers/pom.xml', import.meta.url), 'utf8');
  const git = (...args: readonly string[]): string =>
    spawnSync('git', args, {cwd: path.join(import.meta.dirname, '../..'), encoding: 'utf8'}).stdout?.trim() ??
    '';
  // The report that is being written is no change.
  const isChanged = git('status', '--porcelain', '--', '.', ':!docs/benchmarks') !== '';
  const commit = `${git('rev-parse', '--short', 'HEAD')}${isChanged ? ' and changes' : ''}`;
  return {
    [COMMIT]: commit || 'of no commit',
    CPU: os.cpus()[0]?.model ?? 'unknown',
    cores: String(os.availableParallelism()),
    memory: `${(os.totalmem() / 2 ** 30).toFixed(0)} GiB`,
    kernel: `${os.type()} ${os.release()}`,
    [LOAD]: os.loadavg()[0]!.toFixed(1),
    Node: process.version,
    PostgreSQL: rows[0]?.version ?? '',
    ClickHouse: (await answer.text()).trim(),
    Kafka: kafkaVersion(),
    Debezium: /<debezium\.version>([^<]+)</.exec(pom)?.[1] ?? '',
    Java: java ?? 'none',
  };
}
