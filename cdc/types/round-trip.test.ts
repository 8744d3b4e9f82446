import test from 'ava';
import {z} from 'zod';
import {chName, rows} from '../sink/clickhouse.ts';
import {targetTable} from '../sink/target.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {pgName, type TableSchema} from '../source/table-schema.ts';
import {planTables} from '../source/tables.ts';
import {startPipeline, transport, type World} from '../test-support/start-pipeline.ts';
import {
  arrays,
  createTable,
  insertRows,
  ODD_ARRAYS,
  scalars,
  type TableUnderTest,
  TYPES_SQL,
  typesUnderTest,
} from './testing/every-type.ts';

const STREAMED = 1000;
const Texts = z.array(z.string().nullable());

/** Each column's text in both servers, a line for each value that is not the same; and how many values there were. */
async function compare(
  {settings, ch}: World,
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
          `${table.name} row ${texts[0]} column ${columns[c]!.name}: ${text} in PostgreSQL, ${stored} in ClickHouse`,
        );
    });
  });
  if (target.length !== source.rows.length) wrong.push(`${table.name}: ${target.length} rows`);
  return {wrong, values};
}

async function captured({settings}: World): Promise<TableSchema[]> {
  const plan = await withClient(clientConfig(settings), client => planTables(client, settings, 180_000));
  return plan.captured.map(table => table.schema);
}

test('every sample of every type arrives as it is, by snapshot and by stream', async t => {
  const {types, extensions} = await typesUnderTest(t);
  const tables: Readonly<Record<string, TableUnderTest>> = {
    scalars: scalars(types, false),
    scalars_not_null: scalars(types, true),
    arrays: arrays(types, false),
    arrays_not_null: arrays(types, true),
    odd_arrays: ODD_ARRAYS,
  };
  const create = Object.entries(tables).map(([name, table]) => createTable(name, table));
  const insert = (firstId: number): string =>
    Object.entries(tables)
      .map(([name, table]) => insertRows(name, table, firstId))
      .join('\n');
  const world = await startPipeline(
    t,
    [...extensions.map(name => `CREATE EXTENSION ${name};`), TYPES_SQL, ...create, insert(0)].join('\n'),
  );
  await world.caughtUp();
  await world.pg.query(insert(STREAMED));
  await world.caughtUp();
  const schemas = await captured(world);
  const check = async (): Promise<void> => {
    for (const table of schemas) t.deepEqual((await compare(world, table)).wrong, []);
  };
  await check();
  for (const table of schemas) {
    // No sample is one that has no place: NULL for it would be equal on both sides.
    const {rows: sent} = tables[table.definition.table]!;
    const given = sent.length + sent.flat().filter(value => value !== 'NULL').length;
    t.is((await compare(world, table)).values, 2 * given, table.name);
  }
  await world.pg.query(
    Object.keys(tables)
      .map(name => `UPDATE ${name} SET touched = id;`)
      .join('\n'),
  );
  await world.caughtUp();
  await check();
  t.deepEqual(await world.query('SELECT * FROM {cdc}._rejects'), []);
});

/** Values that ClickHouse has no place for. */
const UNFIT: Readonly<Record<string, readonly string[]>> = {
  date: ['infinity', '-infinity', '1899-12-31', '2300-01-01', '0044-03-15 BC', '10000-01-01'],
  timestamp: [
    'infinity',
    '-infinity',
    '1899-12-31 23:59:59.999999',
    '2300-01-01',
    '4713-01-01 BC',
    '294276-12-31 23:59:59',
  ],
  timestamptz: [
    'infinity',
    '-infinity',
    '1900-01-01 00:59:59+01',
    '2299-12-31 23:00:00-01',
    '0001-01-31 BC',
    '294276-12-31',
  ],
  'numeric(10,2)': ['NaN'],
  'date[]': ['{2024-01-01,infinity}', '{1899-12-31}'],
  'numeric(10,2)[]': ['{1.00,NaN}'],
  'int[]': ['{{1,2},{3,4}}'],
};

test('what ClickHouse cannot hold is NULL and recorded, the same by snapshot and by stream', async t => {
  const types = Object.entries(UNFIT).map(([sql, samples]) => ({sql, samples}));
  const table = scalars(types, false);
  const world = await startPipeline(t, createTable('unfit', table) + insertRows('unfit', table, 0));
  await world.caughtUp();
  await world.pg.query(insertRows('unfit', table, STREAMED));
  await world.caughtUp();
  const [schema] = await captured(world);
  t.deepEqual(await compare(world, schema!), {wrong: [], values: 2 * table.rows.length});
  const recorded = async (where: string): Promise<unknown[]> =>
    world.query(
      `SELECT DISTINCT toUInt32OrZero(extract(key, '\\\\d+')) % ${STREAMED} AS id, column_name, value, reason != '' AS why
       FROM {cdc}._rejects WHERE toUInt32OrZero(extract(key, '\\\\d+')) ${where} ORDER BY ALL`,
    );
  const bySnapshot = await recorded(`< ${STREAMED}`);
  t.deepEqual(await recorded(`>= ${STREAMED}`), bySnapshot);
  const sent = await world.pg.query<Record<string, string | null>>({
    text: `SELECT ${types.map(({sql}, i) => `${pgName(`${i} ${sql}`)}::text`).join(', ')} FROM unfit WHERE id < ${STREAMED}`,
  });
  t.is(
    bySnapshot.length,
    sent.rows.flatMap(row => Object.values(row).filter(value => value !== null)).length,
  );
  t.deepEqual(
    bySnapshot
      .filter(row => (row as {column_name: string}).column_name === '0 date')
      .map(row => (row as {value: string}).value),
    ['infinity', '-infinity', '1899-12-31', '2300-01-01', '0044-03-15 BC', '10000-01-01'],
  );
});

test('a NOT NULL column is no place for NULL: in the stream its table is parked, the others go on', async t => {
  const {
    pg: source,
    query,
    caughtUp,
    ended,
  } = await startPipeline(
    t,
    'CREATE TABLE strict (id int PRIMARY KEY, d date NOT NULL); CREATE TABLE other (id int PRIMARY KEY)',
  );
  await caughtUp();
  await source.query("INSERT INTO strict VALUES (1, 'infinity')");
  if (transport() === 'direct') {
    // The slot is the log of all tables, so none of them can go on alone.
    t.like(await ended(), {code: 'value.unrepresentable', table: 'public.strict'});
    return;
  }
  await t.throwsAsync(caughtUp(), {code: 'ch.rejected', message: /public\.strict is parked: .*\bd\b.*1900/});
  await source.query('INSERT INTO other VALUES (1)');
  while ((await query('SELECT id FROM {an}.other')).length === 0);
  t.deepEqual(await query('SELECT d FROM {cdc}.public__strict'), []);
});

test('a NOT NULL column is no place for NULL: a snapshot is refused', async t => {
  const {ended} = await startPipeline(
    t,
    "CREATE TABLE strict (id int PRIMARY KEY, n numeric(5,1)[] NOT NULL); INSERT INTO strict VALUES (1, '{NaN}')",
  );
  const error = await ended();
  t.is((error as {code?: string}).code, 'value.unrepresentable');
  t.regex(String(error), /public\.strict\.n /);
});
