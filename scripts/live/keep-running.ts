import {setTimeout as sleep} from 'node:timers/promises';
import {readFreshness} from '../../cdc/observe/status.ts';
import {textTable} from '../../cdc/observe/text-table.ts';
import {startTraffic} from '../shop/traffic.ts';
import type {Stack} from '../stack/stack.ts';
import type {Demo} from './demo.ts';

/** On a terminal the picture is drawn again each second; elsewhere a line says the same now and then. */
const TERMINAL_MS = 1_000;
const LINES_MS = 10_000;

/** Makes live traffic and shows rates and lag until the signal comes or something ends by itself. */
export async function keepRunning(
  demo: Demo,
  {rate, shopUrl, stack}: {rate: number; shopUrl: string; stack: Stack},
): Promise<void> {
  await demo.caughtUp();
  printAddresses(demo, stack, shopUrl);
  let failures = '';
  const traffic =
    rate > 0
      ? startTraffic(shopUrl, {
          rate,
          onError: error => {
            failures = error.message;
          },
        })
      : undefined;
  const over = new AbortController();
  const end = (): void => over.abort();
  demo.signal.addEventListener('abort', end, {once: true});
  if (demo.signal.aborted) end();
  demo.ended.then(() => {
    if (!demo.signal.aborted) process.exitCode = 1;
    end();
  });
  let drawn = 0;
  let before = {orders: 0, statements: 0, at: performance.now()};
  while (!over.signal.aborted) {
    await sleep(process.stdout.isTTY ? TERMINAL_MS : LINES_MS, undefined, {signal: over.signal}).catch(
      () => {},
    );
    if (over.signal.aborted) break;
    const tables = await readFreshness(demo.client, demo.settings).catch(() => []);
    const now = {orders: 0, statements: 0, ...traffic?.stats(), at: performance.now()};
    const seconds = (now.at - before.at) / 1000;
    const rates = `${((now.orders - before.orders) / seconds).toFixed(0)} orders/s, ${((now.statements - before.statements) / seconds).toFixed(0)} statements/s`;
    before = now;
    const lag = Math.max(0, ...tables.map(({lag_seconds: value}) => value ?? 0));
    const complete =
      tables
        .map(({complete_up_to: to}) => to ?? '')
        .sort()[0]
        ?.slice(11, 19) || 'unknown';
    const headline = `complete up to ${complete} UTC · ${rates} · lag ${lag.toFixed(2)} s${failures ? ` · ${failures}` : ''}`;
    if (!process.stdout.isTTY) {
      console.log(headline);
      continue;
    }
    const picture = `${headline}\n${textTable(
      tables.map(({table_name, state, lag_seconds, p95_lag_seconds, rows_last_5_min}) => ({
        table: table_name,
        state,
        'lag s': lag_seconds?.toFixed(2) ?? '',
        'p95 s': p95_lag_seconds?.toFixed(2) ?? '',
        'rows in 5 min': rows_last_5_min,
      })),
    )}\n`;
    process.stdout.write(`${drawn > 0 ? `\x1b[${drawn}F\x1b[J` : ''}${picture}`);
    drawn = picture.split('\n').length - 1;
  }
  console.log('\n· stopping');
  await traffic?.stop();
}

function printAddresses({settings}: Demo, stack: Stack, shopUrl: string): void {
  const native = `clickhouse-client --port ${stack.clickhouseNative.port} --user explorer --password explorer --database ${settings.FRESHET_ANALYTICS_DATABASE}`;
  const lines: readonly (readonly [string, string])[] = [
    ['Status page', `http://127.0.0.1:${settings.FRESHET_HTTP_PORT}/`],
    ['SQL in the browser', `${settings.FRESHET_CLICKHOUSE_URL}/play`],
    ['SQL', native],
    ['', 'npm run -s freshet -- sql "SELECT * FROM daily_sales_summary ORDER BY day DESC LIMIT 5"'],
    ['PostgreSQL', shopUrl],
    ...(stack.kafkaBrokers
      ? [['Kafka', `${stack.kafkaBrokers}, topics ${settings.FRESHET_TOPIC_PREFIX}.public.*`] as const]
      : []),
    ['Pipeline', 'npm run -s freshet -- status   (or verify)'],
  ];
  console.log(
    `\n${lines.map(([name, value]) => `  ${name.padEnd(20)}${value}`).join('\n')}\n\n  Ctrl-C stops everything.\n`,
  );
}
