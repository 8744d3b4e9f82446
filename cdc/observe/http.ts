import {once} from 'node:events';
import {createServer, type Server} from 'node:http';
import {setTimeout as sleep} from 'node:timers/promises';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import type {ClickHouseClient} from '../sink/clickhouse.ts';
import {nameOf, Registry} from '../sink/registry.ts';
import {withoutSecrets} from './log.ts';
import {metrics, registry} from './metrics.ts';
import {readFreshness} from './status.ts';
import {statusPage} from './status-page.ts';

/**
 * Serves /health (503 where a table, or what is counted from the tables, is late, parked or unknown), /metrics for Prometheus, and a page for people.
 * Throws `settings.invalid` where the port cannot be had.
 */
export async function serveStatus(
  client: ClickHouseClient,
  settings: Settings,
  port = settings.FRESHET_HTTP_PORT,
): Promise<{port: number; close(): Promise<void>}> {
  const server = createServer((request, response) => {
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    answer(client, settings, path).then(
      ({status, type, body}) =>
        response.writeHead(status, {'content-type': type, 'cache-control': 'no-store'}).end(body),
      error =>
        response
          .writeHead(500, {'content-type': 'text/plain; charset=utf-8'})
          .end(withoutSecrets(String(error))),
    );
  });
  server.listen(port, settings.FRESHET_HTTP_HOST);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new PipelineError('settings.invalid', `FRESHET_HTTP_PORT=${port}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return {port: portOf(server), close: () => closed(server)};
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
}

async function answer(client: ClickHouseClient, settings: Settings, path: string): Promise<Answer> {
  switch (path) {
    case '/metrics':
      await Promise.race([countParked(client, settings), sleep(PATIENCE_MS, undefined, {ref: false})]);
      return {status: 200, type: registry.contentType, body: await registry.metrics()};
    case '/health': {
      const tables = await readFreshness(client, settings);
      const healthy = tables.length > 0 && tables.every(({state}) => state === 'ok' || state === 'idle');
      return {status: healthy ? 200 : 503, type: 'application/json', body: JSON.stringify({healthy, tables})};
    }
    case '/':
      return {status: 200, type: 'text/html; charset=utf-8', body: await statusPage(client, settings)};
    default:
      return {status: 404, type: 'text/plain; charset=utf-8', body: 'there are /, /health and /metrics'};
  }
}

/** Whoever asks for metrics waits for a few seconds at most. */
const PATIENCE_MS = 2_000;

/** Whichever process sets a table aside writes it down; where ClickHouse does not answer, what it said last stays. */
async function countParked(client: ClickHouseClient, settings: Settings): Promise<void> {
  const tables = await new Registry(client, settings).tables().catch(() => undefined);
  if (!tables) return;
  metrics.parked.reset();
  for (const row of tables) if (row.state === 'parked') metrics.parked.set({table: nameOf(row)}, 1);
}

function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function closed(server: Server): Promise<void> {
  server.closeAllConnections();
  server.close();
  await once(server, 'close');
}
