import {spawn, spawnSync} from 'node:child_process';
import {once} from 'node:events';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {asTargetError, clickhouseClient} from '../sink/clickhouse.ts';

/** Without a query: `clickhouse-client` on the database of the views. With one: runs it and prints a table. */
export async function sql(settings: Settings, query: string | undefined): Promise<number> {
  if (query !== undefined) return print(settings, query);
  if (spawnSync('clickhouse-client', ['--version'], {stdio: 'ignore'}).error) {
    throw new PipelineError(
      'settings.invalid',
      'clickhouse-client is not installed: give a query, as in freshet sql "SELECT 1"',
    );
  }
  const child = spawn(
    'clickhouse-client',
    [
      `--host=${new URL(settings.FRESHET_CLICKHOUSE_URL).hostname}`,
      `--port=${settings.FRESHET_CLICKHOUSE_NATIVE_PORT}`,
      `--user=${settings.FRESHET_CLICKHOUSE_USER}`,
      `--database=${settings.FRESHET_ANALYTICS_DATABASE}`,
    ],
    // By the environment: arguments are seen by everyone on the machine.
    {stdio: 'inherit', env: {...process.env, CLICKHOUSE_PASSWORD: settings.FRESHET_CLICKHOUSE_PASSWORD}},
  );
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}

async function print(settings: Settings, query: string): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const result = await client.exec({
      query,
      clickhouse_settings: {output_format_pretty_max_rows: '1000', output_format_pretty_color: 0},
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
