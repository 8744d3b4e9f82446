import {z} from 'zod';
import {chName, rows} from '../../sink/clickhouse.ts';
import {targetTable} from '../../sink/target.ts';
import {clientConfig, withClient} from '../../source/postgres.ts';
import {pgName, type TableSchema} from '../../source/table-schema.ts';
import {planTables} from '../../source/tables.ts';
import type {World} from '../../test-support/start-pipeline.ts';

const Texts = z.array(z.string().nullable());

/**
 * Each column's text in both servers by the key `id`: a line for each value that is not the same, and how many values
 * there were. Each server makes the text of its own value, as for `verify`.
 */
export async function compare(
  {settings, ch}: Pick<World, 'settings' | 'ch'>,
  table: TableSchema,
): Promise<{wrong: string[]; values: number}> {
  const {definition, columns} = table;
  const pgTexts = columns.map(({name, stored}) => stored.pgText(pgName(name)));
  const chTexts = columns.map(({name, stored}) => stored.chText(chName(name)));
  const source = await withClient(clientConfig(settings), client =>
    client.query<{texts: unknown}>(
      `SELECT ARRAY[${pgTexts.join(', ')}] AS texts FROM ${pgName(definition.schema, definition.table)} ORDER BY id`,
    ),
  );
  const target = await rows(
    ch,
    z.object({texts: Texts}),
    `SELECT [${chTexts.join(', ')}] AS texts FROM ${targetTable(settings, table)} FINAL WHERE _is_deleted = 0 ORDER BY id`,
  );
  const wrong: string[] = [];
  let values = 0;
  source.rows.forEach((row, r) => {
    const texts = Texts.parse(row.texts);
    texts.forEach((text, c) => {
      if (text !== null) values++;
      const stored = target[r]?.texts[c];
      if (stored !== text)
        wrong.push(
          `${table.name} row ${texts[0]} column ${columns[c]!.name}: ${JSON.stringify(text)} in PostgreSQL, ${JSON.stringify(stored)} in ClickHouse`,
        );
    });
  });
  if (target.length !== source.rows.length) wrong.push(`${table.name}: ${target.length} rows`);
  return {wrong, values};
}

/** The schemas of the captured tables, by today's catalog. */
export async function captured({settings}: Pick<World, 'settings'>): Promise<TableSchema[]> {
  const plan = await withClient(clientConfig(settings), async client => {
    const {rows: found} = await client.query<{version: number}>(
      "SELECT current_setting('server_version_num')::int AS version",
    );
    return planTables(client, settings, found[0]!.version);
  });
  return plan.captured.map(table => table.schema);
}
