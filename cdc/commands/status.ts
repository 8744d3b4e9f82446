import {oneLine} from '../observe/one-line.ts';
import {readSchemaReport, readTriggersReport} from '../observe/schema-report.ts';
import {freshnessLine, METRICS, readFreshness, readSlotReport} from '../observe/status.ts';
import {textTable} from '../observe/text-table.ts';
import {rollupsPosition} from '../rollups/position.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';

/** Prints slot, tables, schema changes and what needs a person. 1 where somebody should do something, otherwise 0. */
export async function status(settings: Settings): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const [slot, triggers, tables, schemas, views] = await Promise.all([
      readSlotReport(settings),
      readTriggersReport(settings),
      readFreshness(client, settings),
      readSchemaReport(client, settings),
      rollupsPosition(client, settings),
    ]);
    console.log(`${slot.line}\n${triggers.line}`);
    if (views.rollups.length > 0)
      console.log(
        `views: ${views.rollups.length - views.filling.length} of ${views.rollups.length} rollups are full, ${views.behind.toLocaleString('en')} rows are not in them yet`,
      );
    if (tables.length > 0)
      console.log(`\n${textTable(tables.map(row => freshnessLine(row, schemas.notes)))}`);
    // What is being read, or filled, comes by itself.
    const isComing = (name: string): boolean => name === METRICS || schemas.notes.has(name);
    if (schemas.changes.length > 0) console.log(`\n${textTable(schemas.changes)}`);
    const attention = [
      ...slot.warnings.map(what => ({what, todo: ''})),
      ...triggers.attention,
      ...(tables.length === 0 ? [{what: 'ClickHouse has no tables of this pipeline yet', todo: ''}] : []),
      ...tables
        .filter(({table_name, state}) => state === 'late' || (state === 'unknown' && !isComing(table_name)))
        .map(({table_name, state, reason}) => ({what: `${table_name} is ${state}: ${reason}`, todo: ''})),
      ...schemas.attention,
    ];
    for (const {what, todo} of attention)
      console.log(`\n! ${oneLine(what)}${todo ? `\n    ${oneLine(todo)}` : ''}`);
    return attention.length > 0 ? 1 : 0;
  } finally {
    await client.close();
  }
}
