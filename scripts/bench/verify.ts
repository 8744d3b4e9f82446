// node scripts/bench/verify.ts [rows, 10,000,000 by default]: how long `freshet verify` takes for a large table, what
// it needs, and whether it finds and repairs a single value that differs.
import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {textTable} from '../../cdc/observe/text-table.ts';
import {caughtUp} from '../../cdc/reconcile/position.ts';
import {type ClickHouseClient, command, rows} from '../../cdc/sink/clickhouse.ts';
import {linesSql, withWorld} from './world.ts';

const count = Number(process.argv[2] ?? 10_000_000);
const TARGET = 'public__lines';

const Memory = z.object({peak: z.coerce.number()});
/** The most memory that a query on the target held since a time, where ClickHouse keeps a log of queries; MiB. */
async function clickhouseMemory(client: ClickHouseClient, since: number): Promise<string> {
  try {
    await command(client, 'SYSTEM FLUSH LOGS');
    const [found] = await rows(
      client,
      Memory,
      `SELECT max(memory_usage) AS peak FROM system.query_log
       WHERE event_time_microseconds >= fromUnixTimestamp64Milli(${since}) AND query LIKE '%${TARGET}%'`,
    );
    return ((found?.peak ?? 0) / (1 << 20)).toFixed(0);
  } catch {
    return '?';
  }
}

console.log(`writing ${count.toLocaleString('en')} rows`);
await withWorld('bench_verify', {sql: linesSql(count)}, async ({client, settings, freshet}) => {
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.${TARGET}`;
  freshet('run');
  while (!(await caughtUp(client, settings, 3_600_000).catch(() => undefined))) await sleep(1_000);
  await command(client, `OPTIMIZE TABLE ${target}`);
  const told: Record<string, unknown>[] = [];
  const measure = async (what: string, ...args: readonly string[]): Promise<void> => {
    const since = Date.now();
    const run = freshet(...args);
    const code = await run.ended;
    told.push({
      what,
      'exit code': code,
      seconds: ((Date.now() - since) / 1000).toFixed(1),
      'ClickHouse MiB': await clickhouseMemory(client, since),
      'Node MiB': run.mebibytes(),
    });
  };
  const plant = (which: string): Promise<void> =>
    command(
      client,
      `INSERT INTO ${target} SELECT * REPLACE (unit_price + toDecimal32('0.001', 3) AS unit_price, _version + 1 AS _version)
       FROM (SELECT * FROM ${target} FINAL WHERE ${which})`,
    );
  await measure('equal', 'verify');
  await plant(`id = ${Math.ceil(count * 0.7)}`);
  await measure('one value differs', 'verify');
  await measure('… repaired', 'verify', '--repair');
  await plant(`id BETWEEN ${Math.ceil(count * 0.2)} AND ${Math.ceil(count * 0.2) + 49_999}`);
  await measure('50,000 rows in a row differ, repaired', 'verify', '--repair');
  console.log(textTable(told));
});
process.exit(0);
