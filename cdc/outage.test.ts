import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import test from 'ava';
import {loadHistory} from '../scripts/shop/history.ts';
import {createShop} from '../scripts/shop/schema.ts';
import {startTraffic} from '../scripts/shop/traffic.ts';
import {kafkaInstalled, type ServerName, startStack} from '../scripts/stack/stack.ts';
import {run} from './pipeline.ts';
import {caughtUp} from './reconcile/position.ts';
import {verify} from './reconcile/verify.ts';
import {loadSettings} from './settings/settings.ts';
import {clickhouseClient} from './sink/clickhouse.ts';
import {quietLog} from './test-support/quiet-log.ts';

test('S16 each server is killed under traffic and comes back: the pipeline goes on, and every table equals PostgreSQL', async t => {
  // Servers of its own: those of the other tests must stay up.
  const dataDir = await mkdtemp(path.join(tmpdir(), 'freshet-outage-'));
  const kafka = kafkaInstalled();
  const ports = {postgres: 0, kafka: 0, clickhouseHttp: 0, clickhouseNative: 0};
  const stack = await startStack({dataDir, kafka, ports});
  const url = stack.pgUrl;
  await createShop(url);
  await loadHistory(url, {seed: 3, customers: 200, products: 40, days: 5});
  const settings = loadSettings({
    FRESHET_PG_URL: url,
    FRESHET_TRANSPORT: kafka ? 'kafka' : 'direct',
    FRESHET_KAFKA_BROKERS: stack.kafkaBrokers ?? '',
    FRESHET_CLICKHOUSE_URL: stack.clickhouseUrl,
    FRESHET_FLUSH_MS: '50',
  });
  const client = clickhouseClient(settings);
  const stopper = new AbortController();
  const log = quietLog();
  const pipeline = run({settings, log, signal: stopper.signal}).then(
    () => null,
    error => error,
  );
  // The shop's own connections break too; it tries again.
  const traffic = startTraffic(url, {rate: 40, seed: 3, pace: 30});
  t.teardown(async () => {
    await traffic.stop();
    stopper.abort();
    await pipeline;
    await client.close();
    await stack.stop();
    await rm(dataDir, {recursive: true});
  });
  const servers: readonly ServerName[] = ['clickhouse', ...(kafka ? ['kafka' as const] : []), 'postgres'];
  const upAgain = (): Promise<unknown> =>
    Promise.race([
      caughtUp(client, settings),
      pipeline.then(error => {
        throw error ?? new Error('the pipeline ended');
      }),
    ]);
  await upAgain();
  for (const server of servers) {
    const orders = traffic.stats().orders;
    await stack.kill(server);
    await stack.restart(server);
    await upAgain();
    t.log(`${server}: ${traffic.stats().orders - orders} orders meanwhile`);
  }
  await traffic.stop();
  await upAgain();
  const verdicts = await verify({client, settings});
  t.deepEqual(
    verdicts.map(({table, verdict}) => `${table} ${verdict}`),
    ['customers', 'order_items', 'orders', 'products'].map(table => `public.${table} equal`),
  );
});
