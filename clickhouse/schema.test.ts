import {readFile, writeFile} from 'node:fs/promises';
import test from 'ava';
import {migrateAndSettle} from '../cdc/rollups/testing/hold-rollups.ts';
import {chLiteral} from '../cdc/sink/clickhouse.ts';
import {createShopTables, testWarehouse} from './testing/warehouse.ts';

const FILE = new URL('schema.sql', import.meta.url);
const HEADER = `-- What readers and the pipeline find after a migration, as ClickHouse itself tells it. Generated:
--   UPDATE_SCHEMA=1 node_modules/.bin/ava clickhouse/schema.test.ts
-- The queries of the views, and each version's own name, are in clickhouse/views/.
`;

test('schema.sql says what a migration makes', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await migrateAndSettle(warehouse);
  const {cdc, analytics} = warehouse.databases;
  const tables = await warehouse.rows<{
    shown: string;
    engine: string;
    sorting_key: string;
    comment: string;
    columns: [name: string, type: string, comment: string][];
  }>(
    `SELECT concat(if(database = '${cdc}', 'cdc', 'ecommerce_analytics'), '.', tables.name) AS shown, engine, sorting_key, comment,
       columns FROM system.tables AS tables
     JOIN (
       SELECT database, table, arraySort(column -> column.4, groupArray((name, type, comment, position))) AS columns
       FROM system.columns WHERE database IN ('${cdc}', '${analytics}') GROUP BY database, table
     ) AS described ON described.database = tables.database AND described.table = tables.name
     WHERE tables.database IN ('${cdc}', '${analytics}') AND NOT match(tables.name, '^public__|^[^_].*_v[0-9]+$|^_batch_') ORDER BY shown`,
  );
  const dumped = tables.map(({shown, engine, sorting_key, comment, columns}) => {
    const list = columns.map(
      ([name, type, about]) => `  ${name} ${type}${about ? ` COMMENT ${chLiteral(about)}` : ''}`,
    );
    const kind = engine === 'View' ? 'VIEW' : 'TABLE';
    const storage = kind === 'TABLE' ? ` ENGINE = ${engine} ORDER BY (${sorting_key})` : '';
    return `CREATE ${kind} ${shown} (\n${list.join(',\n')}\n)${storage}${comment ? ` COMMENT ${chLiteral(comment)}` : ''};\n`;
  });
  const text = `${HEADER}\n${dumped.join('\n')}`;
  if (process.env.UPDATE_SCHEMA) await writeFile(FILE, text);
  t.is(text, await readFile(FILE, 'utf8'));
});
