import {spawn, spawnSync} from 'node:child_process';
import {once} from 'node:events';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {ACCESS} from '../../clickhouse/access.ts';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {asTargetError, clickhouseClient} from '../sink/clickhouse.ts';

/**
 * Whoever asks here is the pipeline's user, and reads no more carelessly than an explorer. How many queries that user has
 * at a time is the pipeline's own business.
 */
const {max_concurrent_queries_for_user: _, ...limits} = ACCESS.explorer.limits;
const AS_EXPLORER: Readonly<Record<string, string>> = {
  readonly: String(ACCESS.explorer.readonly),
  ...Object.fromEntries(Object.entries(limits).map(([name, {value}]) => [name, String(value)])),
};

/** Limits that a client of 2018 refuses. */
const YOUNG = new Set(['os_thread_priority', 'compile_aggregate_expressions']);

/** Without a query: `clickhouse-client` on the database of the views. With one: runs it and prints a table. */
export async function sql(settings: Settings, query: string | undefined): Promise<number> {
  if (query !== undefined) return print(settings, query);
  const {error, stdout} = spawnSync('clickhouse-client', ['--version'], {encoding: 'utf8'});
  if (error) {
    throw new PipelineError(
      'settings.invalid',
      'clickhouse-client is not installed: give a query, as in freshet sql "SELECT 1"',
    );
  }
  const password = settings.FRESHET_CLICKHOUSE_PASSWORD;
  // Debian's is of 2018 (18.16) and knows nothing of the environment, nor of some of the limits.
  const isOld = Number(/version (\d+)/.exec(stdout)?.[1]) < 21;
  const file = isOld && password !== '' ? passwordFile(password) : undefined;
  const child = spawn(
    'clickhouse-client',
    [
      `--host=${new URL(settings.FRESHET_CLICKHOUSE_URL).hostname}`,
      `--port=${settings.FRESHET_CLICKHOUSE_NATIVE_PORT}`,
      `--user=${settings.FRESHET_CLICKHOUSE_USER}`,
      `--database=${settings.FRESHET_ANALYTICS_DATABASE}`,
      ...Object.entries(AS_EXPLORER)
        .filter(([name]) => !(isOld && YOUNG.has(name)))
        .map(([name, value]) => `--${name}=${value}`),
      ...(file ? [`--config-file=${file.name}`] : []),
    ],
    // By the environment: arguments are seen by everyone on the machine.
    {stdio: 'inherit', env: {...process.env, CLICKHOUSE_PASSWORD: password}},
  );
  // Ctrl-C on the terminal goes to both, and is meant for the query.
  process.on('SIGINT', () => {});
  try {
    const [code] = (await once(child, 'exit')) as [number | null];
    return code ?? 1;
  } finally {
    file?.remove();
  }
}

/** A configuration of clickhouse-client that only this user can read. */
function passwordFile(password: string): {name: string; remove(): void} {
  const folder = mkdtempSync(path.join(tmpdir(), 'freshet-sql-'));
  const name = path.join(folder, 'client.xml');
  const text = password.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  writeFileSync(name, `<config><password>${text}</password></config>\n`, {mode: 0o600});
  return {name, remove: () => rmSync(folder, {recursive: true})};
}

async function print(settings: Settings, query: string): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const result = await client.exec({
      query,
      clickhouse_settings: {
        ...AS_EXPLORER,
        output_format_pretty_max_rows: '1000',
        output_format_pretty_color: 0,
      },
      http_headers: {
        'X-ClickHouse-Database': settings.FRESHET_ANALYTICS_DATABASE,
        'X-ClickHouse-Format': 'PrettyCompactMonoBlock',
      },
    });
    for await (const chunk of result.stream) process.stdout.write(chunk);
    return 0;
  } catch (error) {
    throw asTargetError(error);
  } finally {
    await client.close();
  }
}
