// node scripts/bench/outage.ts [seconds, 300 by default] [changes a second, 1000] [--server clickhouse|kafka]
//   [--how stop|kill] [--transport kafka|direct] [--together]
// A server stands still (SIGSTOP), or is killed and comes back, while changes are written: what waits meanwhile, how
// much memory each process needs, and how long it takes until rows are visible within 2 s again.
// --together: with Kafka, capture and sink in one process.
import {setTimeout as sleep} from 'node:timers/promises';
import {parseArgs} from 'node:util';
import pg from 'pg';
import {z} from 'zod';
import {textTable} from '../../cdc/observe/text-table.ts';
import {caughtUp} from '../../cdc/reconcile/position.ts';
import {verify} from '../../cdc/reconcile/verify.ts';
import {rows} from '../../cdc/sink/clickhouse.ts';
import {readSlot} from '../../cdc/source/slot.ts';
import {startTemporaryStack} from '../stack/stack.ts';
import {linesSql, withWorld} from './world.ts';

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {
    server: {type: 'string', default: 'clickhouse'},
    how: {type: 'string', default: 'stop'},
    transport: {type: 'string', default: 'kafka'},
    together: {type: 'boolean', default: false},
  },
});
const server = z.enum(['clickhouse', 'kafka']).parse(values.server);
const how = z.enum(['stop', 'kill']).parse(values.how);
const transport = z.enum(['kafka', 'direct']).parse(values.transport);
const seconds = Number(positionals[0] ?? 300);
const rate = Number(positionals[1] ?? 1000);

const FRESH_S = 2;
/** So long it must stay fresh to count as fresh again. */
const STAYS_MS = 5_000;
const PATIENCE_MS = 600_000;
const Newest = z.object({at: z.coerce.number()});

/** Writes changes at the rate, in small transactions, each with a row that tells when it was written. */
function startWriting(url: string) {
  let changes = 0;
  let stopped = false;
  const writing = (async () => {
    const client = new pg.Client(url);
    await client.connect();
    const since = Date.now();
    for (let id = 1_000_000; !stopped; ) {
      const due = Math.floor(((Date.now() - since) / 1000) * rate) - changes;
      if (due < 20) {
        await sleep(10);
        continue;
      }
      // Of ten changes six are new rows, three change one, one deletes one.
      const n = Math.min(20, due);
      await client.query(
        `INSERT INTO lines SELECT i, i / 7, 'SKU-' || i % 1000, md5(i::text), 1, 1, now(), '{}'
           FROM generate_series(${id}, ${id + n * 0.6 - 1}) i;
         UPDATE lines SET quantity = quantity + 1 WHERE id BETWEEN ${id - n * 3} AND ${id - n * 2.7 - 1};
         DELETE FROM lines WHERE id BETWEEN ${id - n * 6} AND ${id - n * 5.9 - 1};
         UPDATE probe SET at = ${Date.now()}`,
      );
      id += Math.ceil(n * 0.6);
      changes += n;
    }
    await client.end();
  })();
  return {
    changes: () => changes,
    async stop() {
      stopped = true;
      await writing;
    },
  };
}

const stack = await startTemporaryStack('outage', {kafka: transport === 'kafka'});
const sql = `${linesSql(20_000)}; CREATE TABLE probe (id int PRIMARY KEY, at bigint NOT NULL); INSERT INTO probe VALUES (1, 0)`;
const servers = {
  TEST_PG_URL: stack.pgUrl,
  TEST_CLICKHOUSE_URL: stack.clickhouseUrl,
  TEST_KAFKA_BROKERS: stack.kafkaBrokers ?? 'none',
};
const overrides = {
  FRESHET_TRANSPORT: transport,
  FRESHET_KAFKA_BROKERS: stack.kafkaBrokers ?? '',
  FRESHET_LOG_LEVEL: process.env.FRESHET_LOG_LEVEL ?? 'error',
};
try {
  await withWorld('bench_outage', {sql, overrides, servers}, async ({pg, client, settings, freshet}) => {
    const commands = transport === 'direct' || values.together ? ['run'] : ['capture', 'sink'];
    const processes = commands.map(name => ({name, run: freshet(name)}));
    const memory = () =>
      Object.fromEntries(processes.map(({name, run}) => [`${name}, most MiB`, run.mebibytes()]));
    while (!(await caughtUp(client, settings, 600_000).catch(() => undefined))) await sleep(500);
    /** How old is the newest row that is visible? Only as exact as it was written often. */
    const age = async (): Promise<number> => {
      const view = `${settings.FRESHET_ANALYTICS_DATABASE}.probe`;
      const [newest] = await rows(client, Newest, `SELECT at FROM ${view}`);
      return (Date.now() - (newest?.at ?? 0)) / 1000;
    };
    const kept = async (): Promise<number> =>
      Math.round(Number((await readSlot(pg, settings.FRESHET_SLOT))?.retainedBytes ?? 0) / (1 << 20));
    const traffic = startWriting(settings.FRESHET_PG_URL);
    const told: Record<string, unknown>[] = [];
    const tell = async (when: string, more: Record<string, unknown>): Promise<void> => {
      const facts = {changes: traffic.changes(), 'slot keeps MiB': await kept(), 'age s': '', 'after s': ''};
      told.push({when, ...facts, ...more, ...memory()});
      console.log(textTable([told.at(-1)!]));
    };
    await sleep(15_000);
    await tell('before', {'age s': (await age()).toFixed(1)});

    console.log(`${server}: ${how === 'stop' ? 'SIGSTOP' : 'SIGKILL'} for ${seconds} s`);
    await stack.kill(server, how === 'stop' ? 'SIGSTOP' : 'SIGKILL');
    await sleep(seconds * 1000);
    await tell('at its end', {});
    if (how === 'stop') await stack.kill(server, 'SIGCONT');
    else await stack.restart(server);
    const back = Date.now();
    let fresh: number | undefined;
    for (let until = back + PATIENCE_MS; Date.now() < until; await sleep(250)) {
      const now = await age().catch(() => Number.POSITIVE_INFINITY);
      if (now > FRESH_S) fresh = undefined;
      else fresh ??= Date.now();
      if (fresh !== undefined && Date.now() - fresh > STAYS_MS) break;
    }
    const took = fresh === undefined ? undefined : (fresh - back) / 1000;
    await tell('fresh again', {'after s': took?.toFixed(1) ?? 'never', 'age s': (await age()).toFixed(1)});
    await traffic.stop();
    await caughtUp(client, settings, PATIENCE_MS);
    await tell('all written', {});
    console.log(`\n${textTable(told)}`);
    const verdicts = await verify({client, settings});
    for (const {table, verdict, rows: counted} of verdicts)
      console.log(`${table}: ${verdict}, ${counted.postgres.toLocaleString('en')} rows`);
    if (took === undefined || verdicts.some(({verdict}) => verdict !== 'equal')) process.exitCode = 1;
  });
} finally {
  await stack.stop();
}
process.exit();
