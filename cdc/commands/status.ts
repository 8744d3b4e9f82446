import {readFreshness, readSlotReport} from '../observe/status.ts';
import {textTable} from '../observe/text-table.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';

/** Prints slot, tables and warnings. 1 where somebody should do something, otherwise 0. */
export async function status(settings: Settings): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const [slot, tables] = await Promise.all([readSlotReport(settings), readFreshness(client, settings)]);
    console.log(slot.line);
    if (tables.length > 0) console.log(`\n${textTable(tables)}`);
    const warnings = [
      ...slot.warnings,
      ...(tables.length === 0 ? ['ClickHouse has no tables of this pipeline yet'] : []),
      ...tables
        .filter(({state}) => state === 'late' || state === 'parked')
        .map(({table_name, state, reason}) => `${table_name} is ${state}: ${reason}`),
    ];
    for (const warning of warnings) console.log(`\n! ${warning}`);
    return warnings.length > 0 ? 1 : 0;
  } finally {
    await client.close();
  }
}
