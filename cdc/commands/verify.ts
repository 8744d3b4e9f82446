import {textTable} from '../observe/text-table.ts';
import {exitCode, type TableVerdict, verify} from '../reconcile/verify.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';

/** Prints a line a table and what differs. 0 equal, 1 different, 2 not settled. */
export async function verifyTables(settings: Settings, timeoutMs: number): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const verdicts = await verify({client, settings, timeoutMs});
    console.log(verdictTable(verdicts));
    for (const {table, differences, reason} of verdicts) {
      if (reason !== '') console.log(`· ${table} has not settled: ${reason}`);
      for (const {key, what, columns} of differences)
        console.log(`✗ ${table} ${key}: ${what} ${columns.join(', ')}`);
    }
    return exitCode(verdicts);
  } finally {
    await client.close();
  }
}

export const verdictTable = (verdicts: readonly TableVerdict[]): string =>
  textTable(
    verdicts.map(({table, verdict, rows, checksum, seconds}) => ({
      table,
      verdict,
      'PostgreSQL rows': rows.postgres.toString(),
      'ClickHouse rows': rows.clickhouse.toString(),
      'PostgreSQL checksum': checksum.postgres,
      'ClickHouse checksum': checksum.clickhouse,
      seconds: seconds.toFixed(2),
    })),
  );
