import {setTimeout as sleep} from 'node:timers/promises';
import {oneLine} from '../observe/one-line.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';
import {nameOf, Registry, type TableRow} from '../sink/registry.ts';
import {nameMatcher} from '../source/catalog.ts';
import {commitLsnOf, type Lsn} from '../source/lsn.ts';
import {problemLines} from '../source/preflight.ts';
import {requestRead} from '../source/read-request.ts';
import {targetName} from '../source/table-schema.ts';

/**
 * Asks the running pipeline to read tables again beside the stream, each into a new target. `patterns` are names as
 * 'schema.table', or patterns of such. With `wait` it returns when they stream again. 1 where nothing was asked for,
 * or a table was parked instead.
 */
export async function resync(
  settings: Settings,
  patterns: readonly string[],
  {wait}: {wait: boolean},
): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const registry = new Registry(client, settings);
    const known = (await registry.tables()).filter(({state}) => state !== 'dropped');
    const {tables, unknown} = choose(known, patterns);
    if (unknown.length > 0) {
      console.error(
        `✗ no such table: ${oneLine(unknown.join(', '))}\n  The pipeline knows ${oneLine(known.map(nameOf).sort().join(', ')) || 'none'}`,
      );
      return 1;
    }
    const asked = await requestRead(settings, tables.map(nameOf));
    if ('problems' in asked) {
      console.error(`✗ nothing was asked for\n${problemLines(asked.problems).join('\n')}`);
      return 1;
    }
    const names = oneLine(tables.map(nameOf).join(', '));
    console.log(
      `${names}: read again beside the stream. Until that is done readers see what they see now.\nWatch it by \`freshet status\`.`,
    );
    if (!asked.active)
      console.log(`! nobody reads slot ${settings.FRESHET_SLOT}: it is done when the pipeline runs again`);
    return wait ? await waitFor(registry, tables, asked.position) : 0;
  } finally {
    await client.close();
  }
}

/** A name stands for itself first: it may hold what is special in a pattern. */
function choose(
  known: readonly TableRow[],
  patterns: readonly string[],
): {tables: TableRow[]; unknown: string[]} {
  const tables = new Set<TableRow>();
  const unknown: string[] = [];
  for (const pattern of patterns) {
    const exact = known.filter(row => nameOf(row) === pattern);
    const matches = nameMatcher([pattern]);
    const found = exact.length > 0 ? exact : known.filter(row => matches(nameOf(row)));
    if (found.length === 0) unknown.push(pattern);
    for (const row of found) tables.add(row);
  }
  return {tables: [...tables], unknown};
}

const POLL_MS = 500;

/** Until what was read behind the position is what readers see. */
async function waitFor(registry: Registry, tables: readonly TableRow[], position: Lsn): Promise<number> {
  const waiting = new Map(tables.map(row => [nameOf(row), row]));
  let code = 0;
  while (waiting.size > 0) {
    await sleep(POLL_MS);
    const entries = [...(await registry.history()).byOid.values()]
      .flat()
      .sort((a, b) => Number(a.since > b.since) - Number(a.since < b.since));
    for (const row of await registry.tables()) {
      const name = nameOf(row);
      const before = waiting.get(name);
      const read = entries.findLast(
        ({since, table}) => table.schema.name === name && commitLsnOf(since) >= position,
      );
      if (!before || (!read && row.reason === before.reason)) continue;
      if (row.state === 'parked' || row.state === 'dropped') {
        console.log(oneLine(`✗ ${name} is ${row.state}: ${row.reason}`));
        code = 1;
      } else if (row.state === 'streaming' && read && row.target === targetName(read.table.schema.definition))
        console.log(oneLine(`✓ ${name} was read, and streams`));
      else continue;
      waiting.delete(name);
    }
  }
  return code;
}
